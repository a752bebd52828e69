/* Byte locks that belong to an open file description: they die with it, whoever the process is and in whichever pid namespace. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "shared.h"

static struct flock range(short type, uint64_t start, uint64_t len)
{
    struct flock l = {0};
    l.l_type = type;
    l.l_whence = SEEK_SET;
    l.l_start = (off_t)start;
    l.l_len = (off_t)len;
    return l;
}

int dbz_lock_try(int fd, uint64_t start, uint64_t len, int exclusive)
{
    struct flock l = range(exclusive ? F_WRLCK : F_RDLCK, start, len);
    while (fcntl(fd, F_OFD_SETLK, &l) != 0) {
        if (errno == EAGAIN || errno == EACCES)
            return DBZ_E_BUSY;
        if (errno != EINTR)
            return DBZ_E_IO;
    }
    return DBZ_OK;
}

int dbz_lock_wait(int fd, uint64_t start, uint64_t len, int exclusive, int64_t timeout_ns)
{
    int64_t deadline = dbz_deadline(timeout_ns);
    for (int64_t pause = 50000;; pause = pause < 10000000 ? 2 * pause : 20000000) {
        int rc = dbz_lock_try(fd, start, len, exclusive);
        if (rc != DBZ_E_BUSY)
            return rc;
        int64_t left = deadline < 0 ? pause : deadline - dbz_deadline(0);
        if (left <= 0)
            return DBZ_E_TIMEOUT;
        struct timespec nap = {0, (long)(left < pause ? left : pause)};
        nanosleep(&nap, NULL);
    }
}

int dbz_lock_drop(int fd, uint64_t start, uint64_t len)
{
    struct flock l = range(F_UNLCK, start, len);
    return fcntl(fd, F_OFD_SETLK, &l) == 0 ? DBZ_OK : DBZ_E_IO;
}

int dbz_lock_taken(int fd, uint64_t start, uint64_t len)
{
    struct flock l = range(F_WRLCK, start, len);
    if (fcntl(fd, F_OFD_GETLK, &l) != 0)
        return DBZ_E_IO;
    return l.l_type != F_UNLCK;
}
