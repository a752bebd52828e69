/* What kind of file system a path is on. */
#include <errno.h>
#include <sys/vfs.h>

#include "segment.h"

int64_t dbz_fs_type(const char *path)
{
    struct statfs fs;
    int rc;
    do
        rc = statfs(path, &fs);
    while (rc != 0 && errno == EINTR);
    return rc != 0 ? -(int64_t)errno : (int64_t)(uint32_t)fs.f_type;
}
