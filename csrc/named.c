/* Whether a name stands for a file, asked without the file's times: since Linux 6.13 a write after somebody asked for those notes a new one in the inode
 * (multigrain timestamps, Documentation/filesystems/multigrain-ts.rst), and the sync of a log file that is looked at after each commit writes twice as much. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "segment.h"

static int look(int dir, const char *path, int flags, struct statx *out)
{
    memset(out, 0, sizeof *out);
    return statx(dir, path, flags | AT_STATX_SYNC_AS_STAT, STATX_TYPE | STATX_INO, out) == 0 ? 0 : -errno;
}

int dbz_named(const char *path)
{
    struct statx there;
    int rc = look(AT_FDCWD, path, 0, &there);
    return rc == 0 ? 1 : rc == -ENOENT || rc == -ENOTDIR ? 0 : rc;
}

int dbz_log_followed(const char *following, const char *own)
{
    int there = dbz_named(following);
    if (there != 0)
        return there;
    there = dbz_named(own);
    return there < 0 ? there : !there;
}

int dbz_same_file(int fd, const char *path)
{
    struct statx here, there;
    int rc = look(AT_FDCWD, path, 0, &there);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0)
        rc = look(fd, "", AT_EMPTY_PATH, &here);
    if (rc != 0)
        return rc;
    return here.stx_ino == there.stx_ino && here.stx_dev_major == there.stx_dev_major && here.stx_dev_minor == there.stx_dev_minor;
}
