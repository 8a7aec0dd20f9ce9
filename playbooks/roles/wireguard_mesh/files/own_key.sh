# Prints the public half of the key in the file $1, and before it `made` where that key was made here.
umask 077
mkdir -p "$(dirname "$1")"
if [ ! -e "$1" ]; then
  wg genkey >"$1.new"
  mv "$1.new" "$1"
  echo made
fi
wg pubkey <"$1"
