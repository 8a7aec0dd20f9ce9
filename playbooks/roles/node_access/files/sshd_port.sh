# Whether anything listens at $wanted, by the kernel's own table (st 0A, proc_net_tcp), else where sshd does: by its settings, or by
# the socket that starts it, which has ports of its own.
if grep -Eqs "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$wanted") [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6; then
  echo "port $wanted listens"
else
  echo "port $wanted silent"
  if systemctl is-active --quiet ssh.socket; then
    systemctl show ssh.socket --property=Listen | sed 's/^Listen=/port of ssh.socket /'
  else
    /usr/sbin/sshd -T 2>/dev/null | sed -n 's/^port /port of sshd /p'
  fi
fi
