# The shell function `conda`. Activation changes the calling shell, so conda prints commands and this evaluates them.
# Above it, conda writes CONDA_EXE and CONDA_PYTHON_EXE. For sh, bash and zsh.
_conda_evaluate() {
    _conda_commands="$(PS1="${PS1-}" "$CONDA_EXE" shell.posix "$@")" || return
    eval "$_conda_commands"
    unset _conda_commands
}

conda() {
    case "${1-}" in
        activate | deactivate)
            _conda_evaluate "$@"
            ;;
        install | update | upgrade | remove | uninstall)
            "$CONDA_EXE" "$@" && _conda_evaluate reactivate
            ;;
        *)
            "$CONDA_EXE" "$@"
            ;;
    esac
}

if [ -z "${CONDA_SHLVL+set}" ]; then
    export CONDA_SHLVL=0
fi
case ":$PATH:" in
    *":${CONDA_EXE%/bin/conda}/condabin:"*) ;;
    *) export PATH="${CONDA_EXE%/bin/conda}/condabin:$PATH" ;;
esac
