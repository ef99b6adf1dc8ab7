/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/manual.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "daemon/config.h"

const char manual_usage[] =
    "Usage: volmgrd --state DIR [OPTION]...\n"
    "Serve volumes of storage pools to hosts.\n"
    "\n"
    "  --state DIR         where the metadata is; made when absent. The control socket is\n"
    "                      DIR/volmgrd.sock\n"
    "  --config FILE       read the configuration; see --print-config\n"
    "  --nbd HOST:PORT     serve NBD at this address, instead of those of the configuration; may\n"
    "                      be repeated. Without it no TCP port is opened\n"
    "  --nbd-unix PATH     serve NBD at this unix socket (default DIR/nbd.sock; none: not at all)\n"
    "  --reactors N        threads that serve I/O (default: one for each CPU)\n"
    "  --poll-us N         how long such a thread looks for the answer of a disk before it\n"
    "                      sleeps, at most (default 200; 0: as for all else; --print-config)\n"
    "  --log-level LEVEL   error, warning, notice, info or debug\n"
    "  --accept-loss       open volumes whose volatile journal is gone although this machine has\n"
    "                      not been restarted: what was acknowledged and not flushed is lost\n"
    "  --foreground        stay in the foreground; it always does\n"
    "  --check             check the metadata in DIR, which no daemon may serve now, and end\n"
    "  --dump              print the metadata of a pool as JSON lines and end\n"
    "  --pool POOL         what to check (default: all) or dump\n"
    "  --print-config      print all configuration keys with their built-in values\n"
    "  --version           print the version\n"
    "  --help              print this\n"
    "\n"
    "It prints one line, \"ready\", when it serves. SIGTERM and SIGINT end it in order, a second\n"
    "one at once; SIGHUP reads the TLS files again.\n"
    "Exit status: 0 ended in order, 1 could not start or did not end in order, 2 usage; of\n"
    "--check and --dump: 0 no errors, 1 errors were found or it could not be done, 2 usage.\n";

/* Lines as they are, for .nf: roff's own characters made harmless. */
static void
print_verbatim(FILE *to, const char *text)
{
    bool at_start = true;
    for (; *text != '\0'; text++) {
        if (at_start && (*text == '.' || *text == '\'')) {
            fputs("\\&", to);
        }
        if (*text == '-') {
            fputs("\\-", to);
        } else if (*text == '\\') {
            fputs("\\e", to);
        } else {
            fputc(*text, to);
        }
        at_start = *text == '\n';
    }
}

void
manual_print(FILE *to)
{
    char *text = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length);
    ASSERT(memory != NULL);
    config_print(memory);
    fclose(memory);
    fputs(".TH VOLMGRD 8 \"\" \"volmgr " VOLMGR_VERSION "\" \"volmgr\"\n"
          ".SH NAME\nvolmgrd \\- serve volumes of storage pools to hosts\n"
          ".SH SYNOPSIS\n.B volmgrd \\-\\-state\n.I DIR\n[\\fIOPTION\\fR]...\n"
          ".SH DESCRIPTION\n.nf\n",
          to);
    /* The first line is the synopsis. */
    print_verbatim(to, strchr(manual_usage, '\n') + 1);
    fputs(".fi\n.SH CONFIGURATION\n"
          "An unknown section or key, a value out of its limits and a key that is given twice are\n"
          "errors. Options of the command line come after the file.\n.PP\n.nf\n",
          to);
    print_verbatim(to, text);
    fputs(".fi\n.SH SIGNALS\n"
          ".TP\n.BR SIGTERM \", \" SIGINT\n"
          "End in order; a second one ends at once, as if killed.\n"
          ".TP\n.B SIGHUP\nRead the TLS files of NBD and of the management API again. Connections\n"
          "that exist keep what they have.\n"
          ".SH PRIVILEGES\n"
          "None are needed beyond access to the disks. With CAP_SYS_RESOURCE (I/O flusher) and an\n"
          "unlimited RLIMIT_MEMLOCK or CAP_IPC_LOCK (locked memory) hosts on the same machine can\n"
          "use its volumes without a deadlock when memory is short; the log says what is missing.\n"
          ".SH FILES\n"
          ".TP\n.I DIR/volmgrd.sock\nThe control socket, for\n.BR volctl (1).\n"
          ".TP\n.I DIR/nbd.sock\nNBD for hosts on this machine.\n"
          ".TP\n.I DIR/pools/\nThe databases of the pools.\n"
          ".TP\n.I /etc/volmgr/volmgrd.conf\n"
          "The configuration of the packaged service, whose DIR is\n"
          ".IR /var/lib/volmgr .\n"
          ".TP\n.I /run/volmgr\n"
          "Of the packaged service: its NBD socket, and the volatile journals,\n"
          "which must outlive the process.\n"
          ".SH SEE ALSO\n.BR volctl (1)\n",
          to);
    free(text);
}
