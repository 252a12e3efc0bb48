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

exec "$@"
