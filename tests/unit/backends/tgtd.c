/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/backends/tgtd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/backends/support.h"

bool
tgtd_available(void)
{
    return geteuid() == 0 && command("command -v tgtd") && command("command -v tgtadm");
}

static int
free_port(void)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&address, size) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
        abort();
    }
    close(fd);
    return ntohs(address.sin_port);
}

static bool
adm(const struct tgtd *tgtd, const char *arguments)
{
    return command("tgtadm -C %d --lld iscsi %s", tgtd->control, arguments);
}

static bool
configure(struct tgtd *tgtd, uint64_t lun_bytes)
{
    char text[512];
    bool done;

    snprintf(text, sizeof(text), "--op new --mode target --tid 1 -T %s", tgtd->target);
    done = adm(tgtd, text);
    for (uint32_t lun = 1; done && lun <= tgtd->lun_count; lun++) {
        char path[384];
        snprintf(path, sizeof(path), "%s/lun%u", tgtd->directory, lun);
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        struct stat status;
        if (fd < 0 || fstat(fd, &status) < 0 ||
            (status.st_size == 0 && ftruncate(fd, (off_t)lun_bytes) < 0)) {
            abort();
        }
        close(fd);
        snprintf(text, sizeof(text),
                 "--op new --mode logicalunit --tid 1 --lun %u -b %s --blocksize %u", lun, path,
                 tgtd->block_bytes != 0 ? tgtd->block_bytes : 512);
        done = adm(tgtd, text);
        snprintf(text, sizeof(text),
                 "--op update --mode logicalunit --tid 1 --lun %u --params thin_provisioning=1",
                 lun);
        done = done && adm(tgtd, text);
    }
    if (done && tgtd->chap) {
        done = adm(tgtd, "--op new --mode account --user carol --password secret-of-carol") &&
               adm(tgtd, "--op bind --mode account --tid 1 --user carol");
    }
    return done && adm(tgtd, "--op bind --mode target --tid 1 -I ALL");
}

bool
tgtd_start(struct tgtd *tgtd, uint64_t lun_bytes)
{
    if (tgtd->port == 0) {
        tgtd->port = free_port();
        tgtd->control = tgtd->port & 0x7fff; /* as unique as the port */
    }
    tgtd->pid = fork();
    if (tgtd->pid == 0) {
        char control[16], portal[64];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        for (int fd = 3; fd < 256; fd++) {
            close(fd);
        }
        snprintf(control, sizeof(control), "%d", tgtd->control);
        snprintf(portal, sizeof(portal), "portal=127.0.0.1:%d", tgtd->port);
        execlp("tgtd", "tgtd", "-f", "-C", control, "--iscsi", portal, (char *)NULL);
        _exit(127);
    }
    for (int attempt = 0; attempt < 100; attempt++) {
        if (command("tgtadm -C %d --mode sys --op show", tgtd->control)) {
            return configure(tgtd, lun_bytes);
        }
        usleep(50000);
    }
    tgtd_kill(tgtd);
    return false;
}

void
tgtd_kill(struct tgtd *tgtd)
{
    if (tgtd->pid > 0) {
        kill(tgtd->pid, SIGKILL);
        waitpid(tgtd->pid, NULL, 0);
        tgtd->pid = 0;
    }
}

void
tgtd_url(const struct tgtd *tgtd, char *text, size_t size, const char *user, uint32_t lun,
         const char *options)
{
    snprintf(text, size, "iscsi://%s%s127.0.0.1:%d/%s/%u%s", user, user[0] != '\0' ? "@" : "",
             tgtd->port, tgtd->target, lun, options);
}
