/* SPDX-License-Identifier: Apache-2.0 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "cli/cli.h"

/* What packages are made of; not for daily use, so not among the commands. -1: none of them. */
static int
generate(int argc, char **argv)
{
    if (argc < 2) {
        return -1;
    }
    if (strcmp(argv[1], "--generate-man") == 0) {
        FILE *to = stdout;
        char path[4096];
        if (argc > 2) {
            snprintf(path, sizeof(path), "%s/volctl.1", argv[2]);
            to = fopen(path, "we");
            if (to == NULL) {
                fprintf(stderr, "volctl: cannot write %s: %s\n", path, error_name(errno));
                return CLI_FAILED;
            }
        }
        cli_generate_man(to);
        bool failed = fflush(to) != 0;
        return to != stdout && (fclose(to) != 0 || failed) ? CLI_FAILED : (int)failed;
    }
    if (strcmp(argv[1], "--generate-api-document") == 0) {
        cli_generate_api_document(stdout);
        return fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
    }
    if (strcmp(argv[1], "--generate-completion") == 0) {
        return cli_generate_completion(stdout, argc > 2 ? argv[2] : "bash") ? CLI_OK : CLI_USAGE;
    }
    return -1;
}

static const char completion_help[] =
    "Usage: volctl completion bash|zsh|fish\n\nPrint a completion script.\n\nExample:\n"
    "  volctl completion bash >/etc/bash_completion.d/volctl\n";

static enum cli_exit
help_about(struct cli *cli, int argc, char **argv)
{
    /* Words behind "help", wherever it stands. */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "help") == 0 && i + 1 < argc) {
            size_t words = 0;
            const struct api_command *command =
                api_command_by_words(argv + i + 1, (size_t)(argc - i - 1), &words);
            if (strcmp(argv[i + 1], "completion") == 0) {
                fputs(completion_help, cli->out);
                return CLI_OK;
            }
            if (strcmp(argv[i + 1], "help") == 0) {
                break;
            }
            if (command == NULL) {
                fprintf(cli->err, "volctl: there is no command \"%s\"\nTry 'volctl --help'.\n",
                        argv[i + 1]);
                return CLI_USAGE;
            }
            cli_print_command_help(cli->out, command);
            return CLI_OK;
        }
    }
    cli_print_help(cli->out);
    return CLI_OK;
}

static enum cli_exit
own_command(struct cli *cli, int argc, char **argv, const char *word, const char *rest)
{
    if (word == NULL) {
        cli_print_help(cli->help ? cli->out : cli->err);
        return cli->help ? CLI_OK : CLI_USAGE;
    }
    if (strcmp(word, "help") == 0) {
        return help_about(cli, argc, argv);
    }
    ASSERT(strcmp(word, "completion") == 0);
    if (cli->help) {
        fputs(completion_help, cli->out);
        return CLI_OK;
    }
    if (rest == NULL || !cli_generate_completion(cli->out, rest)) {
        fprintf(cli->err, "volctl: completion needs the name of a shell: bash, zsh or fish\n");
        return CLI_USAGE;
    }
    return CLI_OK;
}

int
main(int argc, char **argv)
{
    struct cli cli = { .out = stdout, .err = stderr };
    struct api_arguments arguments;
    const char *word;
    const char *rest;
    int generated = generate(argc, argv);
    if (generated >= 0) {
        return generated;
    }
    enum cli_exit result = cli_parse(&cli, argc, argv, &arguments, &word, &rest);
    if (result == CLI_OK) {
        if (cli.version) {
            puts("volctl " VOLMGR_VERSION);
        } else if (arguments.command == NULL) {
            result = own_command(&cli, argc, argv, word, rest);
        } else if (cli.help) {
            cli_print_command_help(stdout, arguments.command);
        } else {
            curl_global_init(CURL_GLOBAL_DEFAULT);
            result = cli_run(&cli, &arguments);
            curl_global_cleanup();
        }
    }
    api_arguments_free(&arguments);
    return (int)result;
}
