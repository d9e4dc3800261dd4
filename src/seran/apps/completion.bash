_seran() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
  if [ "$cur" = "=" ]; then cur=; fi
  if [ "$prev" = "=" ]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
  case "${COMP_WORDS[1]} $prev" in
@VALUES@
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    words=@COMMANDS@
  elif [ -z "$words" ]; then
    case "${COMP_WORDS[1]} $cur" in
@OPTIONS@
@WORDS@
    esac
  fi
  # shellcheck disable=SC2207  # no word of ours has a space
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _seran seran
