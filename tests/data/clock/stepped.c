/* A wall clock that a test sets, preloaded into a process. It adds the seconds in the file named by
 * STEPPED_CLOCK (eight bytes, native) to every time of day. Waits until a time of day follow it, as
 * in the kernel: one that began before a step back lasts that much longer. Monotonic time is not
 * changed.
 *
 * Debian's libfaketime does not know C11's cnd_timedwait, which librdkafka waits with. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>

/* How often a wait checks the clock; it then wakes spuriously, which POSIX allows. */
#define LOOK_NS 50000000L

static volatile int64_t *stepped;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) stepped = page;
}

static int64_t step(void) { return stepped ? *stepped : 0; }

static int real_time(clockid_t clock, struct timespec *now) {
    static int (*ask)(clockid_t, struct timespec *);
    if (!ask) ask = dlsym(RTLD_NEXT, "clock_gettime");
    return ask(clock, now);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = real_time(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += step();
    }
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    clock_gettime(CLOCK_REALTIME, now);
    return base;
}

/* The next check, or the end if that is sooner; returns whether it is the end. */
static int next_look(const struct timespec *until, struct timespec *look) {
    struct timespec end = *until;
    end.tv_sec -= step();
    real_time(CLOCK_REALTIME, look);
    look->tv_nsec += LOOK_NS;
    if (look->tv_nsec >= 1000000000L) {
        look->tv_nsec -= 1000000000L;
        look->tv_sec += 1;
    }
    int sooner = end.tv_sec < look->tv_sec ||
                 (end.tv_sec == look->tv_sec && end.tv_nsec <= look->tv_nsec);
    if (sooner) *look = end;
    return sooner;
}

/* Deadlines in monotonic time are far below those in time of day. */
#define IS_TIME_OF_DAY(until) ((until)->tv_sec > 1000000000)

int pthread_cond_timedwait(pthread_cond_t *on, pthread_mutex_t *with,
                           const struct timespec *until) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!wait) wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    if (!IS_TIME_OF_DAY(until)) return wait(on, with, until);
    struct timespec look;
    int last = next_look(until, &look);
    int woken = wait(on, with, &look);
    return woken == 0 || last ? woken : 0;
}

int cnd_timedwait(cnd_t *on, mtx_t *with, const struct timespec *until) {
    static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
    if (!wait) wait = dlsym(RTLD_NEXT, "cnd_timedwait");
    struct timespec look;
    int last = next_look(until, &look);
    int woken = wait(on, with, &look);
    return woken == thrd_timedout && !last ? thrd_success : woken;
}
