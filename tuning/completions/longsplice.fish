# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_longsplice_global_optspecs
    string join \n c= p= g= e= t T q s= listen= to= tls-cert= tls-key= idle-timeout= v V h/help
end

function __fish_longsplice_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_longsplice_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_longsplice_using_subcommand
    set -l cmd (__fish_longsplice_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c longsplice -n "__fish_longsplice_needs_command" -s c -d 'Configuration file, or a conf.d fragment [/etc/longsplice/longsplice.conf]' -r -F
complete -c longsplice -n "__fish_longsplice_needs_command" -s p -d 'What log and pid files are relative to [the file\'s directory]' -r -F
complete -c longsplice -n "__fish_longsplice_needs_command" -s g -d 'Directives of the main context, before those of the file' -r
complete -c longsplice -n "__fish_longsplice_needs_command" -s e -d 'Error log where the file names none [stderr]' -r -F
complete -c longsplice -n "__fish_longsplice_needs_command" -s s -d 'Signal the running process: stop, quit (after the last tunnel), reload, reopen, upgrade' -r -f -a "stop\t''
quit\t''
reload\t''
reopen\t''
upgrade\t''"
complete -c longsplice -n "__fish_longsplice_needs_command" -l listen -d 'PORT, ADDRESS:PORT or unix:PATH; may be given several times' -r
complete -c longsplice -n "__fish_longsplice_needs_command" -l to -d 'Backend: PORT, NAME:PORT, https://NAME or unix:PATH; several take turns' -r
complete -c longsplice -n "__fish_longsplice_needs_command" -l tls-cert -d 'Certificate chain (PEM): clients then speak wss:// and https://' -r -F
complete -c longsplice -n "__fish_longsplice_needs_command" -l tls-key -d 'Its private key (PEM)' -r -F
complete -c longsplice -n "__fish_longsplice_needs_command" -l idle-timeout -d 'Close a tunnel that was silent for so long: 90s, 10m [1h]' -r
complete -c longsplice -n "__fish_longsplice_needs_command" -s t -d 'Test the configuration: errors, warnings, and what has no effect here'
complete -c longsplice -n "__fish_longsplice_needs_command" -s T -d 'The same, and print every file that was read'
complete -c longsplice -n "__fish_longsplice_needs_command" -s q -d 'Say nothing but errors'
complete -c longsplice -n "__fish_longsplice_needs_command" -s v -d 'Print the version'
complete -c longsplice -n "__fish_longsplice_needs_command" -s V -d 'Print the version, how it was built, and what this host gives it'
complete -c longsplice -n "__fish_longsplice_needs_command" -s h -l help -d 'Print this help'
complete -c longsplice -n "__fish_longsplice_needs_command" -f -a "doctor" -d 'What of this host will bite at so many tunnels, and the command that mends it'
complete -c longsplice -n "__fish_longsplice_needs_command" -f -a "top" -d 'Watch a running longsplice in the terminal'
complete -c longsplice -n "__fish_longsplice_using_subcommand doctor" -s c -d 'Configuration file, or a conf.d fragment' -r -F
complete -c longsplice -n "__fish_longsplice_using_subcommand doctor" -s p -d 'What log and pid files are relative to [the file\'s directory]' -r -F
complete -c longsplice -n "__fish_longsplice_using_subcommand doctor" -s g -d 'Directives of the main context, before those of the file' -r
complete -c longsplice -n "__fish_longsplice_using_subcommand doctor" -l connections -d 'Clients at once, each with a connection to a backend [what the file\'s limits allow, else 10000]' -r
complete -c longsplice -n "__fish_longsplice_using_subcommand doctor" -l json -d 'For programs'
complete -c longsplice -n "__fish_longsplice_using_subcommand doctor" -s h -l help -d 'Print this help'
complete -c longsplice -n "__fish_longsplice_using_subcommand top" -s d -l delay -d 'Seconds between two answers' -r
complete -c longsplice -n "__fish_longsplice_using_subcommand top" -s c -d 'Configuration file of the one to watch: its first `status` location is asked' -r -F
complete -c longsplice -n "__fish_longsplice_using_subcommand top" -l once -d 'Print one snapshot as text (also when the output is no terminal); its rates are those of one delay'
complete -c longsplice -n "__fish_longsplice_using_subcommand top" -l json -d 'Print the JSON as the server sends it'
complete -c longsplice -n "__fish_longsplice_using_subcommand top" -l insecure -d 'Take any certificate (https)'
complete -c longsplice -n "__fish_longsplice_using_subcommand top" -s h -l help -d 'Print this help'
