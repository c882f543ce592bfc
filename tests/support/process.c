/* SPDX-License-Identifier: Apache-2.0
 *
 * process.c: fork and exec, output in memfds, ends collected by waitpid.
 *
 * Output goes to memory files rather than pipes, so that a chatty child never blocks on a test that
 * is not reading, and nothing is left on disk when a test is killed. Between fork and exec only
 * async-signal-safe calls are made, because relay and fake-server threads may be running. The child
 * checks its parent after asking for PDEATHSIG: a parent that died in between would never be
 * noticed.
 *
 * Ports: a test process reserves a port among tests by binding an abstract Unix socket named after
 * it, which the kernel releases when the process ends, and then asks whether anybody listens there.
 */
#include "process.h"

#include "await.h"
#include "cleanup.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT_FIRST 10000
#define PORT_COUNT 20000
#define OUTPUT_MAX ((off_t)64 * 1024 * 1024)

struct process {
    pid_t pid;
    int out, err; /* memfds */
    bool ended;
    int status; /* as waitpid gives it */
};

static void end_process(void *object)
{
    struct process *p = object;

    process_kill(p);
    close(p->out);
    close(p->err);
    free(p);
}

static void become(const struct process_options *options, pid_t parent, int out, int err)
    __attribute__((noreturn));
static void become(const struct process_options *options, pid_t parent, int out, int err)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(126);
    }
    if (options->files != 0) {
        struct rlimit limit = {options->files, options->files};
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (options->dir != NULL && chdir(options->dir) != 0) {
        _exit(126);
    }
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    execvp(options->argv[0], (char *const *)(uintptr_t)options->argv);
    dprintf(STDERR_FILENO, "cannot run %s: %s\n", options->argv[0], strerror(errno));
    _exit(127);
}

/* Appended to: the writes of two threads to a memfd are not ordered by its position, which Linux locks
 * for opened files alone, so that one line could take the place of another. */
static int output_file(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    cr_assert(fd >= 0 && fcntl(fd, F_SETFL, O_APPEND) == 0, "memfd_create: %s", strerror(errno));
    return fd;
}

struct process *process_start(const struct process_options *options)
{
    struct process *p = calloc(1, sizeof(*p));
    pid_t parent = getpid();

    cr_assert(p != NULL);
    p->out = output_file("stdout");
    p->err = output_file("stderr");
    p->pid = fork();
    if (p->pid == 0) {
        become(options, parent, p->out, options->err != 0 ? options->err : p->err);
    }
    cr_assert(p->pid > 0, "fork: %s", strerror(errno));
    cleanup_add(end_process, p);
    return p;
}

pid_t process_pid(const struct process *p)
{
    return p->pid;
}

void process_signal(struct process *p, int sig)
{
    if (!process_ended(p)) {
        kill(p->pid, sig);
    }
}

void process_freeze(struct process *p)
{
    int status = 0;

    cr_assert(!process_ended(p), "frozen after its end");
    kill(p->pid, SIGSTOP);
    /* reported once the last thread has stopped */
    while (waitpid(p->pid, &status, WUNTRACED) < 0 && errno == EINTR) {
        /* again */
    }
    if (!WIFSTOPPED(status)) {
        p->ended = true;
        p->status = status;
        cr_assert_fail("ended instead of stopping");
    }
}

void process_thaw(struct process *p)
{
    process_signal(p, SIGCONT);
}

void process_limit_files(struct process *p, unsigned files)
{
    struct rlimit limit;

    cr_assert(prlimit(p->pid, RLIMIT_NOFILE, NULL, &limit) == 0, "prlimit: %s", strerror(errno));
    limit.rlim_cur = files < limit.rlim_max ? files : limit.rlim_max;
    cr_assert(prlimit(p->pid, RLIMIT_NOFILE, &limit, NULL) == 0, "prlimit: %s", strerror(errno));
}

bool process_ended(struct process *p)
{
    if (!p->ended && waitpid(p->pid, &p->status, WNOHANG) == p->pid) {
        p->ended = true;
    }
    return p->ended;
}

static bool has_ended(void *ctx)
{
    return process_ended(ctx);
}

bool process_wait(struct process *p, int64_t ms)
{
    return await(has_ended, p, ms);
}

int process_status(const struct process *p)
{
    return WIFEXITED(p->status) ? WEXITSTATUS(p->status) : 128 + WTERMSIG(p->status);
}

void process_kill(struct process *p)
{
    if (!process_ended(p)) {
        kill(p->pid, SIGKILL);
        while (waitpid(p->pid, &p->status, 0) < 0 && errno == EINTR) {
            /* again */
        }
        p->ended = true;
    }
}

static const char *contents(int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || st.st_size <= 0) {
        return "";
    }
    off_t size = st.st_size < OUTPUT_MAX ? st.st_size : OUTPUT_MAX;
    char *text = cleanup_alloc((size_t)size + 1);
    ssize_t n = pread(fd, text, (size_t)size, 0);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

const char *process_stdout(struct process *p)
{
    return contents(p->out);
}

const char *process_stderr(struct process *p)
{
    return contents(p->err);
}

/* The text of /proc/PID/name, in a buffer of the caller's; "" when there is none. */
static void read_proc(const struct process *p, const char *name, char *buf, size_t max)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)p->pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, buf, max - 1) : 0;
    buf[n > 0 ? n : 0] = '\0';
    if (fd >= 0) {
        close(fd);
    }
}

int64_t process_cpu_ms(const struct process *p)
{
    char text[1024];
    unsigned long user = 0;
    unsigned long sys = 0;

    read_proc(p, "stat", text, sizeof(text));
    /* the name in parentheses may hold blanks: count fields from behind it */
    const char *rest = strrchr(text, ')');
    cr_assert(rest != NULL, "no such process: %d", (int)p->pid);
    int got = sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys);
    cr_assert(got == 2);
    return (int64_t)(user + sys) * 1000 / sysconf(_SC_CLK_TCK);
}

int64_t process_rss_kb(const struct process *p)
{
    char text[4096];

    read_proc(p, "status", text, sizeof(text));
    const char *line = strstr(text, "VmRSS:");
    cr_assert(line != NULL, "no such process: %d", (int)p->pid);
    return strtoll(line + 6, NULL, 10);
}

struct process *process_run(const char *const *argv, int64_t ms)
{
    struct process *p = process_start(&(struct process_options){.argv = argv});

    cr_assert(process_wait(p, ms), "%s still runs after %lld ms; stderr: %s", argv[0],
              (long long)ms, process_stderr(p));
    return p;
}

/* ---- Ports ---------------------------------------------------------------------------------- */

/* The socket stays open until the test process ends: that is the reservation. */
static bool reserve_port(int port)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int len = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "nearside-test-port-%d", port);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);

    cr_assert(fd >= 0, "socket: %s", strerror(errno));
    if (bind(fd, (struct sockaddr *)&name, size) != 0) {
        close(fd);
        return false;
    }
    return true;
}

static bool can_listen(int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                               .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    bool ok = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(fd, 1) == 0;
    close(fd);
    return ok;
}

int free_port(void)
{
    static unsigned next;

    if (next == 0) {
        next = (unsigned)getpid() * 7919u;
    }
    for (int tries = 0; tries < PORT_COUNT; tries++) {
        int port = PORT_FIRST + (int)(next++ % PORT_COUNT);
        if (reserve_port(port) && can_listen(port)) {
            return port;
        }
    }
    cr_assert_fail("no free port");
    return 0;
}

/* ---- Directories ---------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

static void end_dir(void *object)
{
    nftw(object, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(object);
}

const char *file_beside(const char *name)
{
    char exe[1024];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

    cr_assert(n > 0);
    exe[n] = '\0';
    *strrchr(exe, '/') = '\0';
    const char *path = cleanup_printf("%s/%s", exe, name);
    cr_assert(access(path, R_OK) == 0, "%s is missing", path);
    return path;
}

const char *temp_dir(void)
{
    char *path = strdup("/tmp/nearside-test-XXXXXX");

    cr_assert(path != NULL && mkdtemp(path) != NULL, "mkdtemp: %s", strerror(errno));
    cleanup_add(end_dir, path);
    return path;
}

const char *temp_file(const char *dir, const char *name, const char *text)
{
    const char *path = cleanup_printf("%s/%s", dir, name);
    FILE *f = fopen(path, "w");

    cr_assert(f != NULL, "%s: %s", path, strerror(errno));
    fputs(text, f);
    fclose(f);
    return path;
}
