# Prints the folder for which a Miniconda was installed, by what conda itself starts; nothing where that is the one given.
# One that was moved, or whose disk is mounted elsewhere now, works only under its old name.
line=
{ read -r line <"$1/bin/conda"; } 2>/dev/null || true
case $line in
  '#!'*/bin/python*)
    made=${line#??}
    made=${made%/bin/python*}
    [ "$made/bin" -ef "$1/bin" ] || printf '%s\n' "$made"
    ;;
esac
