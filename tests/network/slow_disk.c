/* A slow disk, for a process that is started with this preloaded: whatever is written or synced takes
 * as many microseconds longer as the file named by COCO_DISK_DELAY_FILE says, while there is one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static void wait_for_disk(void) {
    const char *path = getenv("COCO_DISK_DELAY_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    char text[16] = {0};
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length > 0) usleep((useconds_t)strtoul(text, NULL, 10));
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    wait_for_disk();
    return REAL(pwrite64)(file, bytes, count, offset);
}

int fdatasync(int file) {
    wait_for_disk();
    return REAL(fdatasync)(file);
}

int fsync(int file) {
    wait_for_disk();
    return REAL(fsync)(file);
}
