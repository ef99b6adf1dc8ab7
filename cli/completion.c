/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion scripts, from the tables. They know commands, options and fixed choices; names of
 * pools and volumes are asked from the daemon, quietly, when it answers within two seconds.
 */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "cli/cli.h"

static const char global_options[] = "--socket --cert --key --cacert --json --wait "
                                    "--timeout --help --version";

/* Words of one level: first words (parent NULL) or second words of a group, each once. */
static void
print_words(FILE *to, const char *parent)
{
    size_t parent_bytes = parent != NULL ? strlen(parent) : 0;
    const char *previous = "";
    for (int id = 0; id < API_COMMAND_COUNT; id++) {
        const char *words = api_command((enum api_command_id)id)->words;
        if (parent != NULL) {
            if (strncmp(words, parent, parent_bytes) == 0 && words[parent_bytes] == ' ') {
                fprintf(to, "%s ", words + parent_bytes + 1);
            }
            continue;
        }
        size_t length = strcspn(words, " ");
        if (strncmp(previous, words, length) == 0 && previous[length] == ' ' &&
            words[length] == ' ') {
            continue; /* rows of a group stand together */
        }
        fprintf(to, "%.*s ", (int)length, words);
        previous = words;
    }
    if (parent == NULL) {
        fputs("completion help", to);
    }
}

static void
print_options(FILE *to, const struct api_command *command)
{
    for (size_t i = 0; i < command->field_count; i++) {
        char option[CLI_OPTION_SIZE];
        if ((command->fields[i].flags & API_POSITIONAL) == 0) {
            fprintf(to, "--%s ", cli_option_name(&command->fields[i], option));
        }
        if (command->fields[i].type == API_TYPE_RULES) {
            fputs("--keep --immutable ", to);
        }
    }
}

static const char *
value_source(const struct api_field *field)
{
    switch (field->type) {
    case API_TYPE_VOLUME:
    case API_TYPE_SCOPE:
        return "volumes";
    case API_TYPE_SNAPSHOT:
        return "snapshots";
    case API_TYPE_VIEW:
    case API_TYPE_VIEWS:
        return "views";
    case API_TYPE_NAME:
        return strcmp(field->name, "pool") == 0 ? "pools" : "none";
    case API_TYPE_DISKS:
        return "files";
    default:
        return field->choices != NULL ? "choices" : "none";
    }
}

static void
print_choices(FILE *to, const struct api_field *field)
{
    for (const char *const *choice = field->choices; choice != NULL && *choice != NULL; choice++) {
        fprintf(to, " %s", *choice);
    }
}

/* ---- bash (zsh runs the same through bashcompinit) ---- */

static void
bash_command(FILE *to, const struct api_command *command)
{
    fprintf(to, "    \"%s\")\n        options=\"", command->words);
    print_options(to, command);
    fputs("\"\n        case \"$previous\" in\n", to);
    for (size_t i = 0; i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        char option[CLI_OPTION_SIZE];
        if ((field->flags & API_POSITIONAL) == 0 && field->type != API_TYPE_BOOL) {
            fprintf(to, "        --%s) value=\"%s", cli_option_name(field, option),
                    value_source(field));
            print_choices(to, field);
            fputs("\" ;;\n", to);
        }
    }
    fputs("        esac\n        positional=(", to);
    for (size_t i = 0; i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        if ((field->flags & API_POSITIONAL) != 0) {
            fprintf(to, " \"%s", value_source(field));
            print_choices(to, field);
            fputs(cli_takes_the_rest(field) ? " rest\"" : "\"", to);
        }
    }
    fputs(" )\n        ;;\n", to);
}

static void
bash_groups(FILE *to)
{
    const char *previous = "";
    for (int id = 0; id < API_COMMAND_COUNT; id++) {
        const char *words = api_command((enum api_command_id)id)->words;
        size_t length = strcspn(words, " ");
        if (words[length] == '\0' ||
            (strncmp(previous, words, length) == 0 && previous[length] == ' ')) {
            continue;
        }
        char group[32];
        ASSERT_OP(length, <, sizeof(group));
        snprintf(group, sizeof(group), "%.*s", (int)length, words);
        fprintf(to, "        %s) COMPREPLY=( $(compgen -W \"", group);
        print_words(to, group);
        fputs("\" -- \"$current\") ); return ;;\n", to);
        previous = words;
    }
}

static void
bash_values(FILE *to)
{
    fputs("# bash completion for volctl; made by \"volctl completion bash\"\n"
          "COMP_WORDBREAKS=${COMP_WORDBREAKS//@} # it is part of the names of snapshots\n"
          "_volctl_names()\n{\n"
          "    volctl \"${_volctl_socket[@]}\" --timeout 2 --json $1 2>/dev/null |\n"
          "        grep -o \"\\\"$2\\\":\\\"[^\\\"]*\\\"\" | cut -d'\"' -f4 | sort -u\n}\n\n"
          "_volctl_value()\n{\n"
          "    local kind=$1; shift\n"
          "    case \"$kind\" in\n"
          "    volumes) COMPREPLY=( $(compgen -W \"$(_volctl_names list volume)\" -- "
          "\"$current\") ) ;;\n"
          "    snapshots) COMPREPLY=( $(compgen -W \"$(_volctl_names snapshots snapshot)\" -- "
          "\"$current\") ) ;;\n"
          "    views) COMPREPLY=( $(compgen -W \"$(_volctl_names list volume) "
          "$(_volctl_names snapshots snapshot)\" -- \"$current\") ) ;;\n"
          "    pools) COMPREPLY=( $(compgen -W \"$(_volctl_names 'pool list' pool)\" -- "
          "\"$current\") ) ;;\n"
          "    files) COMPREPLY=( $(compgen -f -- \"$current\") ) ;;\n"
          "    choices) COMPREPLY=( $(compgen -W \"$*\" -- \"$current\") ) ;;\n"
          "    esac\n}\n\n",
          to);
}

static void
generate_bash(FILE *to)
{
    bash_values(to);
    fputs("_volctl()\n{\n"
          "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    local -a words=() positional=() _volctl_socket=()\n"
          "    local i options=\"\" value=\"\" command=\"\" count=0\n"
          "    for (( i = 1; i < COMP_CWORD; i++ )); do\n"
          "        case \"${COMP_WORDS[i]}\" in\n"
          "        -s|--socket|--cert|--key|--cacert)\n"
          "            _volctl_socket+=( \"${COMP_WORDS[i]}\" \"${COMP_WORDS[i+1]}\" )\n"
          "            (( i++ )) ;;\n"
          "        -*) ;;\n"
          "        *) words+=( \"${COMP_WORDS[i]}\" ) ;;\n"
          "        esac\n"
          "    done\n"
          "    case \"$previous\" in\n"
          "    -s|--socket|--cert|--key|--cacert)\n"
          "        COMPREPLY=( $(compgen -f -- \"$current\") ); return ;;\n"
          "    esac\n"
          "    if (( ${#words[@]} == 0 )); then\n"
          "        COMPREPLY=( $(compgen -W \"",
          to);
    print_words(to, NULL);
    fprintf(to, " %s\" -- \"$current\") ); return\n    fi\n", global_options);
    fputs("    if (( ${#words[@]} == 1 )); then\n        case \"${words[0]}\" in\n", to);
    bash_groups(to);
    fputs("        completion) COMPREPLY=( $(compgen -W \"bash zsh fish\" -- \"$current\") ); "
          "return ;;\n"
          "        esac\n    fi\n"
          "    command=${words[0]}; count=$(( ${#words[@]} - 1 ))\n"
          "    case \"$command\" in\n",
          to);
    fputs("    pool|disk|session) command=\"${words[0]} ${words[1]}\"; (( count-- )) ;;\n"
          "    esac\n"
          "    case \"$command\" in\n",
          to);
    for (int id = 0; id < API_COMMAND_COUNT; id++) {
        bash_command(to, api_command((enum api_command_id)id));
    }
    fputs("    esac\n"
          "    if [[ -n $value ]]; then _volctl_value $value; return; fi\n"
          "    if [[ $current == -* ]]; then\n"
          "        COMPREPLY=( $(compgen -W \"$options ",
          to);
    fprintf(to, "%s\" -- \"$current\") ); return\n    fi\n", global_options);
    fputs("    if (( count >= ${#positional[@]} && ${#positional[@]} > 0 )); then\n"
          "        count=$(( ${#positional[@]} - 1 ))\n"
          "        [[ ${positional[count]} == *\" rest\" ]] || return\n"
          "    fi\n"
          "    if (( ${#positional[@]} > 0 )); then _volctl_value ${positional[count]}; fi\n"
          "}\n"
          "complete -F _volctl volctl\n",
          to);
}

/* ---- fish ---- */

static void
fish_text(FILE *to, const char *text)
{
    fputc('\'', to);
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\') {
            fputc('\\', to);
        }
        fputc(*text, to);
    }
    fputc('\'', to);
}

static void
fish_command(FILE *to, const struct api_command *command)
{
    const char *space = strchr(command->words, ' ');
    char condition[96];
    if (space == NULL) {
        fprintf(to, "complete -c volctl -n __fish_use_subcommand -a %s -d ", command->words);
        snprintf(condition, sizeof(condition), "__fish_seen_subcommand_from %s", command->words);
    } else {
        char group[32];
        snprintf(group, sizeof(group), "%.*s", (int)(space - command->words), command->words);
        fprintf(to, "complete -c volctl -n __fish_use_subcommand -a %s\n", group);
        fprintf(to,
                "complete -c volctl -n '__fish_seen_subcommand_from %s; and test (count "
                "(commandline -opc)) -eq 2' -a %s -d ",
                group, space + 1);
        snprintf(condition, sizeof(condition),
                 "__fish_seen_subcommand_from %s; and __fish_seen_subcommand_from %s", group,
                 space + 1);
    }
    fish_text(to, command->summary);
    fputc('\n', to);
    for (size_t i = 0; i < command->field_count; i++) {
        const struct api_field *field = &command->fields[i];
        char option[CLI_OPTION_SIZE];
        fprintf(to, "complete -c volctl -n '%s'", condition);
        if ((field->flags & API_POSITIONAL) == 0) {
            fprintf(to, " -l %s%s", cli_option_name(field, option),
                    field->type == API_TYPE_BOOL ? "" : " -r");
        }
        if (strcmp(value_source(field), "volumes") == 0) {
            fputs(" -a '(__volctl_names list volume)'", to);
        } else if (strcmp(value_source(field), "snapshots") == 0) {
            fputs(" -a '(__volctl_names snapshots snapshot)'", to);
        } else if (strcmp(value_source(field), "views") == 0) {
            fputs(" -a '(__volctl_names list volume) (__volctl_names snapshots snapshot)'", to);
        } else if (strcmp(value_source(field), "pools") == 0) {
            fputs(" -a '(__volctl_names \"pool list\" pool)'", to);
        } else if (strcmp(value_source(field), "files") == 0) {
            fputs(" -F", to);
        } else if (field->choices != NULL) {
            fputs(" -a '", to);
            print_choices(to, field);
            fputc('\'', to);
        }
        fputs(" -d ", to);
        fish_text(to, field->help);
        fputc('\n', to);
        if (field->type == API_TYPE_RULES) {
            fprintf(to, "complete -c volctl -n '%s' -l keep -r\n", condition);
            fprintf(to, "complete -c volctl -n '%s' -l immutable -r\n", condition);
        }
    }
}

static void
generate_fish(FILE *to)
{
    fputs("# fish completion for volctl; made by \"volctl completion fish\"\n"
          "function __volctl_names\n"
          "    volctl --timeout 2 --json (string split ' ' $argv[1]) 2>/dev/null |\n"
          "        string match -ra \"\\\"$argv[2]\\\":\\\"[^\\\"]*\\\"\" | "
          "string replace -r '.*:\"(.*)\"' '$1' | sort -u\n"
          "end\n"
          "complete -c volctl -f\n"
          "complete -c volctl -s s -l socket -r -F -d 'control socket of the daemon'\n"
          "complete -c volctl -l cert -r -F -d 'our certificate, for https'\n"
          "complete -c volctl -l key -r -F -d 'the key of our certificate'\n"
          "complete -c volctl -l cacert -r -F -d 'authorities for the certificate of the daemon'\n"
          "complete -c volctl -l json -d 'print the reply of the API as it is'\n"
          "complete -c volctl -l wait -d 'follow the job to its end'\n"
          "complete -c volctl -l timeout -r -d 'give up waiting for an answer'\n"
          "complete -c volctl -n __fish_use_subcommand -a 'completion help'\n"
          "complete -c volctl -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'\n",
          to);
    for (int id = 0; id < API_COMMAND_COUNT; id++) {
        fish_command(to, api_command((enum api_command_id)id));
    }
}

bool
cli_generate_completion(FILE *to, const char *shell)
{
    ASSERT(shell != NULL);
    if (strcmp(shell, "bash") == 0) {
        generate_bash(to);
    } else if (strcmp(shell, "zsh") == 0) {
        fputs("#compdef volctl\nautoload -U +X bashcompinit && bashcompinit\n", to);
        generate_bash(to);
    } else if (strcmp(shell, "fish") == 0) {
        generate_fish(to);
    } else {
        return false;
    }
    return true;
}
