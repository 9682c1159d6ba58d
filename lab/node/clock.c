/* A time of day that tests may set, for programs that are started with this library preloaded. The kernel's own clock is
 * that of the whole machine. LAB_CLOCK names a file that holds how many seconds to add, read anew each time. Clocks that
 * do not tell the time of day stay as they are, as when somebody sets a node's clock. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t ahead(void)
{
    const char *path = getenv("LAB_CLOCK");
    char text[32] = "";
    int before = errno, file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) < 0)
            text[0] = 0;
        close(file);
    }
    errno = before;
    return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int code = syscall(SYS_clock_gettime, clock, now);
    if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead();
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int code = syscall(SYS_gettimeofday, now, zone);
    if (code == 0)
        now->tv_sec += ahead();
    return code;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}
