/* One content, three ways to it: calls, private and shared mappings all see the page cache.
 *
 *     files [DIRECTORY]                      where to make a file, /tmp
 */
#include "program.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { PAGES = 32 };

static long bytes_of(int file) {
    struct stat stat;
    check(fstat(file, &stat) == 0);
    return stat.st_size;
}

static char *mapped(int file, long pages, int rights, int flags, long first_page) {
    char *start = mmap(0, pages * PAGE, rights, flags, file, first_page * PAGE);
    check(start != MAP_FAILED);
    return start;
}

/* Positions, ends and holes. */
static void calls(int file) {
    char text[64] = {0};
    check(write(file, "one two three", 13) == 13);
    check(lseek(file, 4, SEEK_SET) == 4);
    check(read(file, text, 3) == 3 && !strcmp(text, "two"));
    check(pread(file, text, 64, 8) == 5 && !memcmp(text, "three", 5));
    check(pwrite(file, "TWO", 3, 4) == 3);
    check(lseek(file, 0, SEEK_CUR) == 7);
    check(lseek(file, -5, SEEK_END) == 8);
    check(read(file, text, 64) == 5 && read(file, text, 64) == 0);
    check(pread(file, text, 13, 0) == 13 && !memcmp(text, "one TWO three", 13));
    check(lseek(file, 2 * PAGE, SEEK_SET) == 2 * PAGE && write(file, "end", 3) == 3);
    printf("a file of %ld bytes, %d of them never written\n", bytes_of(file), 2 * PAGE - 13);
    check(pread(file, text, 4, 2 * PAGE - 2) == 4 && !memcmp(text, "\0\0en", 4));
    check(ftruncate(file, 5) == 0 && bytes_of(file) == 5);
    check(ftruncate(file, 10) == 0 && bytes_of(file) == 10);
    check(pread(file, text, 64, 0) == 10 && !memcmp(text, "one T\0\0\0\0\0", 10));
    check(lseek(file, -1, SEEK_SET) == -1 && errno == EINVAL);
    check(pread(-1, text, 1, 0) == -1 && errno == EBADF);
    printf("what is cut off comes back as zeros\n");
}

/* A shared mapping is the file; a private one is, until it is written. */
static void mappings(int file) {
    char page[PAGE];
    check(ftruncate(file, 0) == 0 && ftruncate(file, PAGES * PAGE) == 0);
    for (long i = 0; i < PAGES; i++) {
        fill_page(page, i + 1);
        check(pwrite(file, page, PAGE, i * PAGE) == PAGE);
    }
    char *shared = mapped(file, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    char *private = mapped(file, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    for (long i = 0; i < PAGES; i++)
        check(is_filled(shared + i * PAGE, i + 1) && is_filled(private + i * PAGE, i + 1));
    printf("two mappings show the %d pages that were written\n", PAGES);

    fill_page(shared + 3 * PAGE, 100);
    check(pread(file, page, PAGE, 3 * PAGE) == PAGE && is_filled(page, 100));
    check(is_filled(private + 3 * PAGE, 100));
    fill_page(page, 101);
    check(pwrite(file, page, PAGE, 4 * PAGE) == PAGE);
    check(is_filled(shared + 4 * PAGE, 101) && is_filled(private + 4 * PAGE, 101));
    printf("a store is in the file at once, a write() in all mappings\n");

    fill_page(private + 5 * PAGE, 102);
    check(is_filled(shared + 5 * PAGE, 6));
    check(pread(file, page, PAGE, 5 * PAGE) == PAGE && is_filled(page, 6));
    fill_page(shared + 5 * PAGE, 103);
    check(is_filled(private + 5 * PAGE, 102));
    check(madvise(private + 5 * PAGE, PAGE, MADV_DONTNEED) == 0);
    check(is_filled(private + 5 * PAGE, 103));
    printf("a private page is a copy until DONTNEED drops it\n");

    check(msync(shared, PAGES * PAGE, MS_SYNC) == 0 && fsync(file) == 0);
    fill_page(shared + 6 * PAGE, 104);
    check(munmap(shared, PAGES * PAGE) == 0);
    check(pread(file, page, PAGE, 6 * PAGE) == PAGE && is_filled(page, 104));
    check(munmap(private, PAGES * PAGE) == 0);
    printf("what was stored outlives its mapping\n");

    char *part = mapped(file, 2, PROT_READ, MAP_SHARED, 6);
    check(is_filled(part, 104) && is_filled(part + PAGE, 8));
    check(munmap(part, 2 * PAGE) == 0);
    check(mmap(0, PAGE, PROT_READ, MAP_SHARED, file, 1) == MAP_FAILED && errno == EINVAL);
}

/* Faults that depend on nothing but the pages: writes. */
static void counts(int file) {
    char *private = mapped(file, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    stage("writes to a private mapping", write_pages(private, PAGES, 1));
    stage("writes again", write_pages(private, PAGES, 2));
    check(munmap(private, PAGES * PAGE) == 0);
    int memory = memfd_create("memory", 0);
    check(memory >= 0 && ftruncate(memory, PAGES * PAGE) == 0);
    char *shared = mapped(memory, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    stage("writes to a shared mapping of a memfd", write_pages(shared, PAGES, 1));
    stage("writes again", write_pages(shared, PAGES, 2));
    check(munmap(shared, PAGES * PAGE) == 0 && close(memory) == 0);
}

/* Files shared by processes; one that has no name lives as long as anyone has it. */
static void sharing(int file) {
    int memory = memfd_create("memory", 0);
    check(memory >= 0 && ftruncate(memory, PAGES * PAGE) == 0);
    char *shared = mapped(memory, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    close(memory);
    check(lseek(file, 0, SEEK_SET) == 0);
    pid_t child = fork();
    if (child == 0) {
        for (long i = 0; i < PAGES; i += 2) fill_page(shared + i * PAGE, i + 1);
        check(lseek(file, 3 * PAGE, SEEK_SET) == 3 * PAGE);
        _exit(0);
    }
    check(ended(child) == 0);
    for (long i = 0; i < PAGES; i++) check(is_filled(shared + i * PAGE, i % 2 ? 0 : i + 1));
    check(lseek(file, 0, SEEK_CUR) == 3 * PAGE);
    printf("what a child stored in a memfd is there, and it moved the common position\n");
    check(munmap(shared, PAGES * PAGE) == 0);
}

/* Which pages are in memory: those that were written, not the holes. */
static void residence(void) {
    int memory = memfd_create("memory", 0);
    check(memory >= 0 && ftruncate(memory, PAGES * PAGE) == 0);
    char *shared = mapped(memory, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    write_pages(shared, 5, 1);
    unsigned char there[PAGES];
    check(mincore(shared, PAGES * PAGE, there) == 0);
    int resident = 0;
    for (int i = 0; i < PAGES; i++) resident += there[i] & 1;
    printf("%d of %d pages of a memfd are resident\n", resident, PAGES);
    check(ftruncate(memory, 2 * PAGE) == 0 && bytes_of(memory) == 2 * PAGE);
    check(mincore(shared, PAGES * PAGE, there) == 0);
    resident = 0;
    for (int i = 0; i < PAGES; i++) resident += there[i] & 1;
    printf("%d are when it is cut to two\n", resident);
    check(munmap(shared, PAGES * PAGE) == 0 && close(memory) == 0);
}

/* Whether a call fails so. */
#define fails(call, why) check((call) == -1 && errno == (why))

static mode_t mode_of(const char *path) {
    struct stat stat;
    check(lstat(path, &stat) == 0);
    return stat.st_mode & 07777;
}

/* Directories that are removed while somebody is in them, or lists them. */
static void directories(void) {
    char text[64], name[32];
    check(mkdir("in", 0755) == 0 && mkdir("in/within", 0755) == 0);
    int removed = open("in/within", O_RDONLY | O_DIRECTORY);
    check(removed >= 0 && chdir("in/within") == 0);
    pid_t child = fork();
    if (child == 0) _exit(rmdir("../within") == 0 && rmdir("../../in") == 0 ? 0 : 1);
    check(ended(child) == 0);
    fails(syscall(SYS_getcwd, text, sizeof text), ENOENT);
    fails(open("new", O_RDWR | O_CREAT, 0600), ENOENT);
    fails(openat(removed, "new", O_RDWR | O_CREAT, 0600), ENOENT);
    fails(mkdirat(removed, "new", 0700), ENOENT);
    fails(rename("../in", "new"), ENOENT);
    int here = open(".", O_RDONLY);
    check(here >= 0 && close(here) == 0 && close(removed) == 0);
    check(chdir("..") == 0 && chdir("..") == 0 && getcwd(text, sizeof text));
    printf("a directory that is removed takes no names, and there is a way out\n");

    check(mkdir("many", 0755) == 0);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "many/%d", i);
        check(close(open(name, O_CREAT | O_WRONLY, 0600)) == 0);
    }
    DIR *many = opendir("many");
    int gone = 0;
    for (struct dirent *entry; (entry = readdir(many));)
        if (entry->d_name[0] != '.') gone += unlinkat(dirfd(many), entry->d_name, 0) == 0;
    check(closedir(many) == 0 && rmdir("many") == 0);
    printf("%d names removed while they were listed\n", gone);
}

/* What is known of a file besides its contents, and other names of it. */
static void names(void) {
    char text[8];
    check(close(open("file", O_CREAT | O_WRONLY, 0640)) == 0 && mode_of("file") == 0640);
    check(chmod("file", 0751) == 0 && mode_of("file") == 0751);
    int file = open("file", O_RDWR | O_APPEND);
    check(fchmod(file, 0600) == 0 && mode_of("file") == 0600);
    check(utimensat(AT_FDCWD, "file", 0, 0) == 0);
    fails(chmod("missing", 0600), ENOENT);
    fails(chown("missing", 0, 0), ENOENT);
    fails(utimensat(AT_FDCWD, "missing", 0, 0), ENOENT);
    check(link("file", "other") == 0 && write(file, "one", 3) == 3);
    fails(link("file", "other"), EEXIST);
    struct stat stat;
    check(lstat("other", &stat) == 0 && stat.st_nlink == 2 && stat.st_size == 3);

    check(pwrite(file, "two", 3, 0) == 3 && pread(file, text, 8, 0) == 6);
    check(!memcmp(text, "onetwo", 6) && lseek(file, 0, SEEK_CUR) == 3);
    fails(pread(file, text, 1, -1), EINVAL);
    fails(pwrite(file, text, 1, -1), EINVAL);
    printf("what is appended comes at the end, wherever it was to be\n");

    check(symlink("target", "link") == 0);
    fails(open("link", O_CREAT | O_EXCL | O_WRONLY, 0600), EEXIST);
    check(close(open("link", O_CREAT | O_WRONLY, 0600)) == 0 && mode_of("target") == 0600);
    fails(open(".", O_CREAT | O_RDONLY, 0600), EISDIR);
    fails(syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "target", 1), EEXIST);
    fails(syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "target", 64), EINVAL);
    fails(fstatat(AT_FDCWD, "file", &stat, 1), EINVAL);
    fails(syscall(SYS_dup3, file, 100, 1), EINVAL);
    fails(memfd_create("memory", 1 << 20), EINVAL);
    printf("a link to nothing makes what it names\n");

    int same = open("other", O_RDONLY);
    check(flock(file, LOCK_EX) == 0);
    fails(flock(same, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    check(close(file) == 0 && flock(same, LOCK_EX | LOCK_NB) == 0 && close(same) == 0);
    check(unlink("file") == 0 && unlink("other") == 0 && unlink("link") == 0);
    check(unlink("target") == 0);
}

/* Of a file with holes only what was written takes room. */
static void holes(void) {
    int memory = memfd_create("memory", 0);
    check(pwrite(memory, "x", 1, 2 * PAGE) == 1);
    struct stat stat;
    check(fstat(memory, &stat) == 0 && stat.st_blocks == 8);
    check(lseek(memory, 0, SEEK_DATA) == 2 * PAGE && lseek(memory, 1, SEEK_HOLE) == 1);
    check(lseek(memory, 2 * PAGE, SEEK_HOLE) == 2 * PAGE + 1);
    fails(lseek(memory, 3 * PAGE, SEEK_DATA), ENXIO);
    check(fallocate(memory, 0, 0, 4 * PAGE) == 0 && bytes_of(memory) == 4 * PAGE);
    check(fstat(memory, &stat) == 0 && stat.st_blocks == 32);
    check(close(memory) == 0);
    int full = open("/dev/full", O_RDWR), zeros = open("/dev/zero", O_RDWR);
    fails(write(full, "x", 1), ENOSPC);
    char *page = mapped(zeros, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    check(is_filled(page, 0) && munmap(page, PAGE) == 0 && close(full) == 0 && close(zeros) == 0);
    printf("a hole takes no room\n");
    char own[256] = {0}, other[256] = {0};
    check(readlink("/proc/self/exe", own, 255) > 0 && strstr(own, "/files"));
    check(symlink(own, "exe") == 0 && chdir("/proc/self") == 0 && readlink("exe", other, 255) > 0);
    check(!strcmp(own, other) && access("exe", X_OK) == 0);
    printf("a program knows where it is\n");
}

int main(int count, char **words) {
    begin();
    char path[256];
    const char *directory = count > 1 ? words[1] : "/tmp";
    snprintf(path, sizeof path, "%s/files.XXXXXX", directory);
    check(mkdtemp(path) && chdir(path) == 0);
    directories();
    names();
    holes();
    check(chdir(path) == 0 && unlink("exe") == 0);
    int unnamed = open(path, O_TMPFILE | O_RDWR, 0600);
    check(write(unnamed, "x", 1) == 1 && close(unnamed) == 0);
    check(chdir("/") == 0 && rmdir(path) == 0);
    snprintf(path, sizeof path, "%s/files.tmp", directory);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(file >= 0);
    calls(file);
    mappings(file);
    counts(file);
    sharing(file);
    residence();
    check(open(path, O_RDWR | O_CREAT | O_EXCL, 0600) == -1 && errno == EEXIST);
    check(unlink(path) == 0);
    check(open(path, O_RDONLY) == -1 && errno == ENOENT);
    check(bytes_of(file) == PAGES * PAGE && close(file) == 0);
    check(close(file) == -1 && errno == EBADF);
    printf("files: done\n");
    return 0;
}
