#!/usr/bin/env bash
# Lets the start scripts of an Opik checkout (opik.sh, opik.ps1) manage esnode-core, Prometheus and
# Grafana behind the flag --infra-metrics, as they manage guardrails behind --guardrails.
#
# What goes in are whole lines between two markers, so that --uninstall restores every byte. Both
# scripts are worked out in full before the first one is replaced. Runs with bash 3.2 and any awk.
set -euo pipefail

readonly OPENING='# >>> esnode infra-metrics'
readonly CLOSING='# <<< esnode infra-metrics'

usage() {
    cat <<'TEXT'
Usage: install.sh CHECKOUT [--uninstall]

Adds the flag --infra-metrics to opik.sh and opik.ps1 in CHECKOUT, a checkout of Opik. With it they
start, verify and show esnode-core, Prometheus and Grafana too; without it nothing changes, but that
--stop and --clean take them along.

  --uninstall  takes it out again
  --help       shows this

The scripts find esnode at the place that this script is in; the variable ESNODE_DIR says another.
TEXT
}

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

misused() {
    printf 'install.sh: %s\n\n' "$*" >&2
    usage >&2
    exit 2
}

checkout=''
uninstall=false
for argument in "$@"; do
    case "$argument" in
        --uninstall) uninstall=true ;;
        --help | -h) usage && exit 0 ;;
        -*) misused "unknown option $argument" ;;
        *)
            [[ -z "$checkout" ]] || misused "more than one checkout: $checkout, $argument"
            checkout="$argument"
            ;;
    esac
done
[[ -n "$checkout" ]] || misused 'say which checkout of Opik'

esnode_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# opik.sh splits its command at white space, and both scripts get the path within quotes.
[[ "$esnode_dir" != *[[:space:]\'\"\`\$\\]* ]] ||
    fail "$esnode_dir has spaces, quotes, \$ or \\ in it, which opik.sh can't hand to docker; move it"

# The path as PowerShell knows it, where this runs beside Windows.
windows_path() {
    if command -v cygpath >/dev/null; then
        cygpath -m "$1"
    elif command -v wslpath >/dev/null; then
        wslpath -m "$1"
    else
        printf '%s\n' "$1"
    fi
}

# Standard input without our lines; 3: markers that don't pair up.
without_blocks() {
    LC_ALL=C FROM="$OPENING" TO="$CLOSING" awk '
        { text = $0; sub(/^[ \t]+/, "", text) }
        index(text, ENVIRON["FROM"]) == 1 { if (inside) exit failed = 3; inside = 1; next }
        index(text, ENVIRON["TO"]) == 1 { if (!inside) exit failed = 3; inside = 0; next }
        !inside
        END { if (failed || inside) exit 3 }'
}

# insert_before SCOPE ANCHOR BLOCK: puts BLOCK before the one line of standard input that is ANCHOR,
# or begins with it where it ends in a star; within the function that the line SCOPE opens, unless
# that is empty. 4: there is no such line; 5: there are several.
insert_before() {
    LC_ALL=C SCOPE="$1" ANCHOR="$2" BLOCK="$OPENING"$'\n'"$3"$'\n'"$CLOSING" awk '
        BEGIN {
            scope = ENVIRON["SCOPE"]
            anchor = ENVIRON["ANCHOR"]
            prefix = sub(/[*]$/, "", anchor)
            lines = split(ENVIRON["BLOCK"], block, "\n")
            within = scope == ""
        }
        {
            text = $0
            ending = sub(/\r$/, "", text) ? "\r" : ""
            if (scope != "" && text == scope) within = 1
            else if (scope != "" && text ~ /^}/) within = 0
            if (within && (prefix ? index(text, anchor) == 1 : text == anchor)) {
                found++
                match(text, /^ */)
                indent = substr(text, 1, RLENGTH)
                for (line = 1; line <= lines; line++)
                    print (block[line] == "" ? "" : indent block[line]) ending
            }
            print
        }
        END { exit found == 1 ? 0 : (found ? 5 : 4) }'
}

# edit SCOPE ANCHOR BLOCK: one insertion into $work.
edit() {
    local status=0
    insert_before "$@" <"$work" >"$work.next" || status=$?
    case "$status" in
        0) mv "$work.next" "$work" ;;
        4) unexpected "has no line \`${2%[*]}\`${1:+ in \`${1% \{}\`}" ;;
        5) unexpected "has more than one line \`${2%[*]}\`${1:+ in \`${1% \{}\`}" ;;
        *) fail "awk failed ($status) on $script" ;;
    esac
}

unexpected() {
    fail "$script is not as expected: it $1. Nothing was changed. Without this script, use" \
        "\`docker compose -f docker-compose.yaml -f $esnode_dir/docker/opik/opik.compose.yaml\`."
}

edit_opik_sh() {
    edit '' 'generate_uuid() {' "# Put here by docker/opik/install.sh of esnode; its --uninstall takes it out.
export ESNODE_DIR=\"\${ESNODE_DIR:-$esnode_dir}\"
INFRA_METRICS_COMPOSE=\"\$ESNODE_DIR/docker/opik/opik.compose.yaml\"
INFRA_METRICS_ENABLED=false
INFRA_METRICS_CONTAINERS=(\"\${COMPOSE_PROJECT_NAME:-opik}-esnode-core-1\" \"\${COMPOSE_PROJECT_NAME:-opik}-prometheus-1\" \"\${COMPOSE_PROJECT_NAME:-opik}-grafana-1\")"
    # shellcheck disable=SC2016 # what is quoted here is text of the script that is edited
    {
        edit 'get_verify_cmd() {' '  echo "$cmd --verify"' \
            '[[ "$INFRA_METRICS_ENABLED" == "true" ]] && cmd="$cmd --infra-metrics"'
        edit 'get_start_cmd() {' '  echo "$cmd"' \
            '[[ "$INFRA_METRICS_ENABLED" == "true" ]] && cmd="$cmd --infra-metrics"'
        edit 'get_docker_compose_cmd() {' '  echo "$cmd"' \
            'if [[ "$INFRA_METRICS_ENABLED" == "true" ]]; then
  cmd="$cmd -f $INFRA_METRICS_COMPOSE --profile infra-metrics"
fi'
        edit 'print_usage() {' '  echo "  --help *' \
            'echo "  --infra-metrics Enable esnode-core, Prometheus and Grafana: what each process used of this machine (can be combined with other flags)"'
        # Before --infra, which it contains. What is stopped may have been started with the flag.
        edit '' 'if [[ "$*" == *"--build"* ]]; then' \
            'if [[ "$*" == *"--infra-metrics"* ]]; then
  if [[ ! -f "$INFRA_METRICS_COMPOSE" ]]; then
    echo "❌ $INFRA_METRICS_COMPOSE is missing: set ESNODE_DIR to where esnode is."
    exit 1
  fi
  INFRA_METRICS_ENABLED=true
  # Remove the flag from arguments
  set -- ${@/--infra-metrics/}
elif [[ "$*" == *"--stop"* || "$*" == *"--clean"* ]] && [[ -f "$INFRA_METRICS_COMPOSE" ]]; then
  INFRA_METRICS_ENABLED=true
fi'
        edit '' 'case "$1" in' \
            'if [[ "$INFRA_METRICS_ENABLED" == "true" ]]; then
  CONTAINERS+=("${INFRA_METRICS_CONTAINERS[@]}")
fi'
    }
}

edit_opik_ps1() {
    edit '' 'function Get-Containers {' "# Put here by docker/opik/install.sh of esnode; its --uninstall takes it out.
if (-not \$env:ESNODE_DIR) { \$env:ESNODE_DIR = '$(windows_path "$esnode_dir")' }
\$INFRA_METRICS_COMPOSE = Join-Path \$env:ESNODE_DIR 'docker/opik/opik.compose.yaml'
\$INFRA_METRICS_ENABLED = \$false
\$INFRA_METRICS_CONTAINERS = @(
    \"opik-esnode-core-1\",
    \"opik-prometheus-1\",
    \"opik-grafana-1\"
)"
    # shellcheck disable=SC2016 # what is quoted here is text of the script that is edited
    {
        edit 'function Get-Containers {' '    return $containers' \
            'if ($INFRA_METRICS_ENABLED) {
    $containers += $INFRA_METRICS_CONTAINERS
}'
        edit 'function Get-DockerComposeCommand {' '    return $dockerArgs' \
            'if ($INFRA_METRICS_ENABLED) {
    $dockerArgs += "-f", $INFRA_METRICS_COMPOSE, "--profile", "infra-metrics"
}'
        edit 'function Get-VerifyCommand {' '    return "$cmd --verify"' \
            'if ($INFRA_METRICS_ENABLED) { $cmd += " --infra-metrics" }'
        edit 'function Get-StartCommand {' '    return $cmd' \
            'if ($INFRA_METRICS_ENABLED) { $cmd += " --infra-metrics" }'
        edit 'function Show-Usage {' "    Write-Host '  --help *" \
            "Write-Host '  --infra-metrics   Enable esnode-core, Prometheus and Grafana: what each process used of this machine (can be combined with other flags)'"
        edit '' "if (\$options -contains '--build') {" \
            'if ($options -contains '\''--infra-metrics'\'') {
    if (-not (Test-Path $INFRA_METRICS_COMPOSE)) {
        Write-Host "[ERROR] $INFRA_METRICS_COMPOSE is missing: set ESNODE_DIR to where esnode is."
        exit 1
    }
    $INFRA_METRICS_ENABLED = $true
    $options = $options | Where-Object { $_ -ne '\''--infra-metrics'\'' }
} elseif (($options -contains '\''--stop'\'' -or $options -contains '\''--clean'\'') -and (Test-Path $INFRA_METRICS_COMPOSE)) {
    # What is stopped may have been started with the flag.
    $INFRA_METRICS_ENABLED = $true
}'
    }
}

# Only a rename within its own folder replaces a script at once.
new_of() { printf '%s/.%s.esnode-new' "$checkout" "$1"; }
old_of() { printf '%s/.%s.esnode-old' "$checkout" "$1"; }

readonly SCRIPTS='opik.sh opik.ps1'
remove_temporary() {
    local name
    for name in $SCRIPTS; do
        rm -f "$(new_of "$name")" "$(old_of "$name")"
    done
    rm -rf "$scratch"
}

# Works out what a script is to be, and leaves it beside the script, with its mode and owner.
prepare() {
    script="$checkout/$1"
    work="$scratch/$1"
    local status=0
    without_blocks <"$script" >"$work" || status=$?
    [[ "$status" != 3 ]] ||
        unexpected "has a marker of esnode without its counterpart (restore it: \`git checkout $1\`)"
    [[ "$status" == 0 ]] || fail "awk failed ($status) on $script"
    "$uninstall" || "edit_${1//./_}"
    cp -p "$script" "$(new_of "$1")"
    if [[ -n "$(tail -c 1 "$script")" ]]; then
        # awk ends the last line, which had no end.
        printf '%s' "$(cat "$work")" >"$(new_of "$1")"
    else
        cat "$work" >"$(new_of "$1")"
    fi
}

[[ -d "$checkout" ]] || fail "$checkout is no directory"
[[ -f "$checkout/deployment/docker-compose/docker-compose.yaml" ]] ||
    fail "$checkout is no checkout of Opik: it has no deployment/docker-compose/docker-compose.yaml"
for name in $SCRIPTS; do
    [[ -f "$checkout/$name" ]] || fail "$checkout is no checkout of Opik that is known: it has no $name"
    [[ ! -L "$checkout/$name" ]] || fail "$checkout/$name is a symbolic link; name the checkout that has the file"
done

scratch=$(mktemp -d)
trap remove_temporary EXIT
for name in $SCRIPTS; do
    prepare "$name"
done

changed=''
for name in $SCRIPTS; do
    cmp -s "$(new_of "$name")" "$checkout/$name" || changed="$changed $name"
done
if [[ -z "$changed" ]]; then
    "$uninstall" && state='does not have it' || state='has it already'
    echo "Nothing to do: $checkout $state."
    exit 0
fi

undo=''
for name in $changed; do
    if ! { cp -p "$checkout/$name" "$(old_of "$name")" && mv -f "$(new_of "$name")" "$checkout/$name"; }; then
        for replaced in $undo; do
            mv -f "$(old_of "$replaced")" "$checkout/$replaced"
        done
        fail "cannot replace $checkout/$name; nothing was changed"
    fi
    undo="$undo $name"
done

if "$uninstall"; then
    echo "Took --infra-metrics out of$changed in $checkout."
else
    echo "Added --infra-metrics to$changed in $checkout. Start Opik with \`./opik.sh --infra-metrics\`."
fi
