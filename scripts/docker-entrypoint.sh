#!/bin/sh
# What the image runs. Options (`-...`) and configuration files (`....conf`) mean redis-server; other
# words are a command of their own. The server never runs as root: /data is handed to the user
# `redis`, which then goes on.
set -e

if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then
    set -- redis-server "$@"
fi

if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis '{}' +
    exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi

# What the server writes is nobody else's business, unless somebody chose otherwise.
if [ "$(umask)" = 0022 ]; then
    umask 0077
fi

# Inside a container every client comes from elsewhere, and which of them can connect is decided by
# what is published. So protected mode is off unless the command line or the file speaks of it.
speaks_of_protection() {
    case "$*" in *--protected-mode*) return 0 ;; esac
    for word in "$@"; do
        case $word in
            -v | --version | -h | --help | --test-memory | --check-system) return 0 ;;
            *.conf) if grep -qi '^[[:space:]]*protected-mode' "$word" 2>/dev/null; then return 0; fi ;;
        esac
    done
    return 1
}
if [ "$1" = redis-server ] && ! speaks_of_protection "$@"; then
    set -- "$@" --protected-mode no
fi

exec "$@"
