/* Makes the disk below one directory fail, for the programs that are started with this preloaded.
 *
 * FAULTS_BELOW: the directory. FAULTS_MODE: a file whose first word says how it fails, read at every call:
 *   full     writes find no room
 *   sync     written bytes cannot be brought to the disk
 *   readonly nothing can be written or opened for writing
 * Anything else, or no file: nothing fails. Files elsewhere are never touched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char mode(void) {
    const char *path = getenv("FAULTS_MODE");
    char first = 0;
    if (path == NULL) return 0;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (syscall(SYS_read, fd, &first, 1) != 1) first = 0;
    syscall(SYS_close, fd);
    return first;
}

static int is_below(const char *path) {
    const char *directory = getenv("FAULTS_BELOW");
    size_t length = directory == NULL ? 0 : strlen(directory);
    return length > 0 && strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int is_file_below(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* The error of a write to this file; 0 = it is carried out. */
static int write_fault(int fd) {
    int saved = errno;
    char now = mode();
    int fault = now == 'f' ? ENOSPC : now == 'r' ? EROFS : 0;
    if (fault != 0 && !is_file_below(fd)) fault = 0;
    errno = saved;
    return fault;
}

static int sync_fault(int fd) {
    int saved = errno;
    int fault = mode() == 's' && is_file_below(fd) ? EIO : 0;
    errno = saved;
    return fault;
}

static int open_fault(const char *path, int flags) {
    int saved = errno;
    int fault = 0;
    if (path != NULL && is_below(path)) {
        char now = mode();
        int writes = (flags & O_ACCMODE) != O_RDONLY;
        if (now == 'r' && (writes || (flags & O_CREAT))) fault = EROFS;
        if (now == 'f' && (flags & O_CREAT) && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0) fault = ENOSPC;
    }
    errno = saved;
    return fault;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_IF(fault) \
    do { \
        int met = (fault); \
        if (met != 0) { \
            errno = met; \
            return -1; \
        } \
    } while (0)

ssize_t write(int fd, const void *bytes, size_t count) {
    FAIL_IF(write_fault(fd));
    return REAL(write)(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    FAIL_IF(write_fault(fd));
    return REAL(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    FAIL_IF(write_fault(fd));
    return REAL(pwrite64)(fd, bytes, count, at);
}

int ftruncate(int fd, off_t length) {
    FAIL_IF(write_fault(fd));
    return REAL(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    FAIL_IF(write_fault(fd));
    return REAL(ftruncate64)(fd, length);
}

int fsync(int fd) {
    FAIL_IF(sync_fault(fd));
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    FAIL_IF(sync_fault(fd));
    return REAL(fdatasync)(fd);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t permissions = va_arg(more, mode_t); \
        va_end(more); \
        FAIL_IF(open_fault(path, flags)); \
        return REAL(name)(path, flags, permissions); \
    }
OPEN(open)
OPEN(open64)
