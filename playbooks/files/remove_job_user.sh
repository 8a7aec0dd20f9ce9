# Takes away the user of jobs that role job_user made, NAME and UID by its record, and prints what stays of that user.
# The words after the third, home and group, name what was there before.
name=$1 uid=$2 jobs=$3
shift 3
was_there=
its_group=$(getent group "$name" | cut -d: -f3)
for word; do case $word in home) was_there=yes ;; group) kept_group=$its_group ;; esac; done
[ "$(id -u "$name" 2>/dev/null)" = "$uid" ] || exit 0
home=$(getent passwd "$name" | cut -d: -f6)
# What systemd started for its logins ends with the last of them.
systemctl stop "user@$uid.service" 2>/dev/null || true
userdel "$name"
# userdel takes a group that nobody else is in; one that was there before is there afterwards, with who is in it.
if [ "${kept_group-}" ]; then
  getent group "$name" >/dev/null || groupadd --gid "$kept_group" "$name"
elif getent group "$name" >/dev/null; then groupdel "$name"; fi
# As they came from there, with the home; a changed one is somebody's.
[ -n "$was_there" ] || for skeleton in /etc/skel/* /etc/skel/.[!.]*; do
  file=$home/${skeleton##*/}
  if [ -f "$file" ] && [ ! -L "$file" ] && cmp -s "$skeleton" "$file"; then rm "$file"; fi
done
for folder in "$home" "$jobs"; do
  if [ "$folder" = "$home" ] && [ -n "$was_there" ]; then continue; fi
  if [ -d "$folder" ] && ! rmdir "$folder" 2>/dev/null; then echo "$folder"; fi
done
