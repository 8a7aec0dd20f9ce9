# Prints, of each path given, the first folder on its way that who runs this may not enter; what is not there yet ends it.
set -f
for path; do
  at=
  IFS=/
  for part in $path; do
    [ -n "$part" ] || continue
    at=$at/$part
    [ -d "$at" ] || break
    if [ ! -x "$at" ]; then
      printf '%s\n' "$at"
      break
    fi
  done
done
