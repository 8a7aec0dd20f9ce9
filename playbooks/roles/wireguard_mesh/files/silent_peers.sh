# Prints those of the addresses behind $1 and $2, an interface and a size in bytes, that do not answer through it within 5 s.
[ -e "/sys/class/net/$1" ] || exit 0
interface=$1 size=$2
shift 2
for address; do
  ping -n -q -c 1 -w 5 -s "$size" -I "$interface" "$address" >/dev/null 2>&1 || echo "$address" &
done
wait
