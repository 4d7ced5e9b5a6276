/* Runs a decoder's steps with the kernels of a library: `arm LIBRARY IMAGE` prints the logits in float32.
 *
 * The image is memory that belongs at one address, with all its pointers right; test_arm.py makes it. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    char *base, *decoder, *step, *logits;
    int64_t bytes, threads, steps, step_bytes, logits_bytes;
} Header;

int main(int count, char **words) {
    void *library = count == 3 ? dlopen(words[1], RTLD_NOW) : NULL;
    if (!library) return fprintf(stderr, "usage: arm LIBRARY IMAGE: %s\n", count == 3 ? dlerror() : ""), 100;
    void *(*session_new)(char *, int) = (void *(*)(char *, int))dlsym(library, "session_new");
    int (*session_step)(void *, char *) = (int (*)(void *, char *))dlsym(library, "session_step");
    void (*session_free)(void *) = (void (*)(void *))dlsym(library, "session_free");
    Header h;
    int file = open(words[2], O_RDONLY);
    if (file < 0 || read(file, &h, sizeof h) != sizeof h) return perror(words[2]), 101;
    if (mmap(h.base, (size_t)h.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0) == MAP_FAILED)
        return perror("mmap"), 102;
    void *session = session_new(h.decoder, (int)h.threads);
    if (!session) return 103;
    for (int64_t s = 0; s < h.steps; s++) {
        int code = session_step(session, h.step + s * h.step_bytes);
        if (code) return code;
    }
    session_free(session);
    return fwrite(h.logits, 1, (size_t)h.logits_bytes, stdout) == (size_t)h.logits_bytes ? 0 : 104;
}
