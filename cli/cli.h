/* SPDX-License-Identifier: Apache-2.0 */
/*
 * volctl: the command line of the management API.
 *
 * A command line becomes an api_arguments (parse.c), travels as HTTP (http.c), and its reply
 * becomes text (print.c); all three go by the tables of api/schema.h and know no single command.
 * What needs more than one call (attach, top, events --follow, --wait) stands apart.
 *
 * Exit status: 0 done; 1 refused, failed, or no daemon; 2 the command line is wrong.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "api/arguments.h"
#include "base/error.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
};

/* What the options that every command has say. */
struct cli {
    const char *socket; /* path, or https://HOST:PORT; NULL: look for one */
    const char *certificate; /* PEM files for https; NULL: from the environment, or none */
    const char *key;
    const char *authorities;
    bool json;
    bool wait;
    bool help;
    bool version;
    unsigned timeout_seconds; /* 0: the default of the command */
    FILE *out;
    FILE *err;
};

/* ---- parse.c ---- */

/*
 * Take argv[1] on. CLI_OK: `ret_arguments` holds a checked command, or its command is NULL and
 * `ret_word` is the first word (NULL: none) of something that is no command of the API, with
 * `ret_rest` behind it. CLI_USAGE: said on cli->err.
 */
enum cli_exit cli_parse(struct cli *cli, int argc, char **argv,
                        struct api_arguments *ret_arguments, const char **ret_word,
                        const char **ret_rest);

/* The option's name for a field: --size for size_bytes. Returns `text`. */
enum {
    CLI_OPTION_SIZE = 40
};
const char *cli_option_name(const struct api_field *field, char text[static CLI_OPTION_SIZE]);
/* Words, as many as there are. */
bool cli_takes_the_rest(const struct api_field *field);

/* The words that are no row of the command table: "help", "completion" ...; ends with NULL. */
extern const char *const cli_own_words[];

/* ---- help.c ---- */

void cli_print_help(FILE *to);
/* "volctl create POOL/VOLUME --size SIZE [--reserve SIZE] ..." without a newline. */
void cli_print_usage(FILE *to, const struct api_command *command);
void cli_print_command_help(FILE *to, const struct api_command *command);

/* ---- http.c ---- */

struct cli_reply {
    unsigned status; /* HTTP */
    json_t *json;    /* NULL: the body is not JSON */
    char *text;      /* the body as it came, terminated */
    size_t length;
};

/* One call. 0, or -errno with `error` set when there was no answer. cli_reply_free() afterwards. */
int cli_call(struct cli *cli, const struct api_arguments *arguments, struct cli_reply *ret_reply,
             struct error *error);
void cli_reply_free(struct cli_reply *reply);
/* Whether the daemon is asked by https. */
bool cli_is_remote(const struct cli *cli);

/* Where the daemon is looked for, in order; writes up to `max` paths (or one https:// address);
 * returns how many. */
enum {
    CLI_SOCKETS_MAX = 4,
    CLI_SOCKET_SIZE = 256,
};
size_t cli_socket_candidates(char paths[][CLI_SOCKET_SIZE], size_t max);

/* ---- run.c ---- */

/* Carry out a parsed command. */
enum cli_exit cli_run(struct cli *cli, const struct api_arguments *arguments);

/*
 * One call whose failure has been told when this returns CLI_FAILED. On CLI_OK the caller frees the
 * reply.
 */
enum cli_exit cli_call_checked(struct cli *cli, const struct api_arguments *arguments,
                               struct cli_reply *ret_reply);
/* The same for a GET command without arguments. */
enum cli_exit cli_get(struct cli *cli, enum api_command_id id, struct cli_reply *ret_reply);
/* What, why, and what to do, on cli->err or as JSON on cli->out. */
enum cli_exit cli_fail(struct cli *cli, const char *what, const char *why,
                       const char *what_to_do, int code);

/* ---- print.c ---- */

/* A list as a table, one object as lines. `body` is foreign: what is missing is left out. */
void cli_print_reply(FILE *to, const struct api_command *command, const json_t *body);
void cli_print_table(FILE *to, const struct api_shape *shape, const json_t *list);
void cli_print_object(FILE *to, const struct api_shape *shape, const json_t *object);
/* One value as people read it; empty text and what is no scalar as "-". Returns `text`. */
enum {
    CLI_VALUE_SIZE = 1100 /* the longest texts are those of disks and errors */
};
const char *cli_value_text(enum api_type type, const json_t *value,
                           char text[static CLI_VALUE_SIZE]);
/* A grid of cells; columns that are all numbers or sizes are right-aligned. */
struct cli_grid;
struct cli_grid *cli_grid_new(size_t columns);
void cli_grid_cell(struct cli_grid *grid, const char *text, bool right);
void cli_grid_print(FILE *to, const struct cli_grid *grid);
void cli_grid_free(struct cli_grid *grid);

/* ---- the longer commands ---- */

/* Print what to paste on a host. */
enum cli_exit cli_attach(struct cli *cli, const struct api_arguments *arguments);
/* Print rates again and again; ends when nobody reads them, or after one table with --once. */
enum cli_exit cli_top(struct cli *cli, const struct api_arguments *arguments);
/* Print events as they come; ends when the daemon does, or nobody reads them. */
enum cli_exit cli_follow_events(struct cli *cli, const struct api_arguments *arguments);
/* Print jobs as they change; with an id to the end of that job, which decides the status. */
enum cli_exit cli_follow_jobs(struct cli *cli, const struct api_arguments *arguments);
/* Tell what was deleted, or what would be freed; with --wait until it is. */
enum cli_exit cli_delete(struct cli *cli, const struct api_arguments *arguments);
/* The table, and what all of them are together. */
enum cli_exit cli_list_snapshots(struct cli *cli, const struct api_arguments *arguments);
/* All parts of a comparison, as they come. */
enum cli_exit cli_diff(struct cli *cli, const struct api_arguments *arguments);
/* Set the rules, or show them. */
enum cli_exit cli_snapshot_policy(struct cli *cli, const struct api_arguments *arguments);
/* Begin a check, wait for its end, tell what it found. CLI_FAILED: errors, or it failed. */
enum cli_exit cli_check(struct cli *cli, const struct api_arguments *arguments);
/* Until the job of a reply has ended; null is no job. */
enum cli_exit cli_wait_for_job(struct cli *cli, const json_t *job);

/* ---- generated texts ---- */

/* volctl(1). */
void cli_generate_man(FILE *to);
/* docs/api.md. */
void cli_generate_api_document(FILE *to);
/* "bash", "zsh", "fish"; false: no such shell. */
bool cli_generate_completion(FILE *to, const char *shell);

#endif
