# Keeps sshd's files, and has the node put them back in $1 seconds unless that is given up.
place=/run/clusterwright/sshd
unit=clusterwright-sshd-undo
systemctl stop $unit.timer 2>/dev/null || true
rm -rf $place
install -d -m 700 /run/clusterwright $place
for path in /etc/ssh/sshd_config /etc/ssh/sshd_config.d/10-clusterwright.conf; do
  if [ -e $path ]; then
    cp -p $path $place/
    echo "cp -p $place/$(basename $path) $path"
  else
    echo "rm -f $path"
  fi
done > $place/undo
if systemctl is-active --quiet ssh; then
  echo "systemctl reset-failed ssh; systemctl restart ssh" >> $place/undo
fi
echo "rm -rf $place; systemctl stop $unit.timer" >> $place/undo
systemd-run --quiet --collect --unit=$unit --on-active="$1" sh $place/undo
