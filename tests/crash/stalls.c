/* Stands before the C library: calls on the append-only file take for ever while a file says so, in
 * the directory in which the server works: `stall-sync` for syncs, `stall-write` for writes, `stall-settings`
 * for syncs of the configuration file. They fail while there is `fail-sync` or `fail-write`, writes of dumps and
 * bases while there is `fail-dump`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int has_name(int fd, const char *part)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0)
        return 0;
    path[len] = 0;
    return strstr(path, part) != NULL;
}

static int is_increment(int fd)
{
    return has_name(fd, ".incr");
}

static int is_dump(int fd)
{
    return has_name(fd, "/temp-");
}

static int fails(int fd)
{
    int does = (access("fail-write", F_OK) == 0 && is_increment(fd))
        || (access("fail-dump", F_OK) == 0 && is_dump(fd));
    if (does)
        errno = ENOSPC;
    return does;
}

static void stall_named(int fd, const char *part, const char *while_there)
{
    if (access(while_there, F_OK) != 0 || !has_name(fd, part))
        return;
    while (access(while_there, F_OK) == 0)
        usleep(1000);
}

static void stall(int fd, const char *while_there)
{
    stall_named(fd, ".incr", while_there);
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    stall_named(fd, "redis.conf", "stall-settings");
    return real(fd);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    stall(fd, "stall-sync");
    if (access("fail-sync", F_OK) == 0 && is_increment(fd)) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real)
        real = (ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    stall(fd, "stall-write");
    if (fails(fd))
        return -1;
    return real(fd, parts, count);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    stall(fd, "stall-write");
    if (fails(fd))
        return -1;
    return real(fd, bytes, len);
}
