package main

import (
	"io"
	"strings"

	"github.com/plyfs/plyfs/cmd/fuse-overlay/internal/options"
	"github.com/plyfs/plyfs/internal/errno"
)

// flags are the program's own, for completion.
const flags = "-o -f -d --debug -s -V --version -h --help --completion=bash --completion=zsh --completion=fish"

// The scripts complete flags, names of options behind -o (one after the other,
// at commas), and directories, as values of options too. In them OPTIONS and
// FLAGS stand for the names.
const (
	bashCompletion = `# bash completion of fuse-overlay
_fuse_overlay() {
	local line=${COMP_LINE:0:COMP_POINT} cur word before
	cur=${line##* }
	COMPREPLY=()
	before=${line% *}
	before=${before##* }
	if [[ $before == -o ]]; then
		word=${cur##*,}
		compopt -o nospace 2>/dev/null
		if [[ $word == *=* ]]; then
			mapfile -t COMPREPLY < <(compgen -d -- "${word##*[=:]}")
		else
			mapfile -t COMPREPLY < <(compgen -P "${cur%"$word"}" -W "OPTIONS" -- "$word")
		fi
	elif [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "FLAGS" -- "$cur")
	else
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
	fi
}
complete -o filenames -F _fuse_overlay fuse-overlay
`
	zshCompletion = `#compdef fuse-overlay
_fuse_overlay_options() {
	local -a names
	names=(OPTIONS)
	if compset -P '*[=:]'; then
		_files -/
	else
		compset -P '*,'
		compadd -S '' -- $names
	fi
}
_arguments -s '*-o[options, separated by commas]:options:_fuse_overlay_options' '-f[stay in the foreground]' \
	'(-d --debug)'{-d,--debug}'[log every request]' '-s[one request at a time]' '(- *)'{-V,--version}'[print the version]' \
	'(- *)'{-h,--help}'[print help]' '(- *)--completion=[print completions]:shell:(bash zsh fish)' '*:directory:_files -/'
`
	fishCompletion = `# fish completion of fuse-overlay
function __fuse_overlay_options
	set -l cur (commandline -ct)
	set -l done (string replace -r '[^,]*$' '' -- $cur)
	for name in OPTIONS
		echo $done$name
	end
end
complete -c fuse-overlay -f -a '(__fish_complete_directories)'
complete -c fuse-overlay -s o -x -a '(__fuse_overlay_options)' -d 'options, separated by commas'
complete -c fuse-overlay -s f -d 'stay in the foreground'
complete -c fuse-overlay -s d -l debug -d 'log every request'
complete -c fuse-overlay -s s -d 'one request at a time'
complete -c fuse-overlay -s V -l version -d 'print the version'
complete -c fuse-overlay -s h -l help -d 'print help'
complete -c fuse-overlay -l completion -x -a 'bash zsh fish' -d 'print completions'
`
)

// completion prints the completions for a shell.
func completion(to io.Writer, shell string) error {
	script, ok := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[shell]
	if !ok {
		return errno.New(errno.ErrBadValue, "there are no completions for %q: name bash, zsh or fish", shell)
	}
	script = strings.NewReplacer("OPTIONS", strings.Join(options.Names(), " "), "FLAGS", flags).Replace(script)
	_, err := io.WriteString(to, script)
	return err
}
