# What sshd is set to (now), what the site alone has set (theirs: our file lies under an empty one, for this command
# only), and the lines of its files that can forbid what a cluster needs.
ours=/etc/ssh/sshd_config.d/10-clusterwright.conf
needed='^(pubkeyauthentication|passwordauthentication|kbdinteractiveauthentication|permitrootlogin|maxstartups) '
/usr/sbin/sshd -T 2>&1 | grep -E "$needed" | sed 's/^/now /'
if [ -e $ours ]; then
  unshare --mount sh -c "mount --bind /dev/null $ours && /usr/sbin/sshd -T" 2>&1 | grep -E "$needed" | sed 's/^/theirs /'
fi
grep -Ein '^[[:space:]]*(PermitRootLogin|PubkeyAuthentication|AuthenticationMethods)' /dev/null /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf \
  2>/dev/null | grep -v "^$ours:" | sed 's/^/line /'
