# Takes away the user of jobs that role job_user made, NAME and UID by its record, and prints what stays of that user.
# A fourth word says that its home was there before.
name=$1 uid=$2 jobs=$3 was_there=${4-}
[ "$(id -u "$name" 2>/dev/null)" = "$uid" ] || exit 0
home=$(getent passwd "$name" | cut -d: -f6)
# What systemd started for its logins ends with the last of them.
systemctl stop "user@$uid.service" 2>/dev/null || true
userdel "$name"
if getent group "$name" >/dev/null; then groupdel "$name"; fi
# As they came from there, with the home; a changed one is somebody's.
[ -n "$was_there" ] || for skeleton in /etc/skel/* /etc/skel/.[!.]*; do
  file=$home/${skeleton##*/}
  if [ -f "$file" ] && [ ! -L "$file" ] && cmp -s "$skeleton" "$file"; then rm "$file"; fi
done
for folder in "$home" "$jobs"; do
  if [ "$folder" = "$home" ] && [ -n "$was_there" ]; then continue; fi
  if [ -d "$folder" ] && ! rmdir "$folder" 2>/dev/null; then echo "$folder"; fi
done
