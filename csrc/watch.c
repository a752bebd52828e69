/* Noticing that files changed which a process writes that shares no segment with us (another container, another user). */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "shared.h"

int dbz_watch_open(const char *directory)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0)
        return DBZ_E_IO;
    if (inotify_add_watch(fd, directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_ONLYDIR) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return DBZ_E_IO;
    }
    return fd;
}

int dbz_watch_wait(int fd, int64_t timeout_ns)
{
    struct pollfd p = {fd, POLLIN, 0};
    int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999) / 1000000;
    int rc = poll(&p, 1, ms > INT32_MAX ? INT32_MAX : (int)ms);
    if (rc == 0)
        return DBZ_E_TIMEOUT;
    if (rc < 0)
        return errno == EINTR ? DBZ_OK : DBZ_E_IO;
    /* What happened is of no interest, only that something did: drain, and let the caller look at the files. */
    char events[4096];
    ssize_t got;
    while ((got = read(fd, events, sizeof events)) > 0) {
    }
    return got < 0 && errno != EAGAIN && errno != EINTR ? DBZ_E_IO : DBZ_OK;
}
