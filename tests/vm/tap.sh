# shellcheck shell=sh
# tap.sh, read by guests: one line a check, in TAP's form, with what was said where one fails.

release=$(uname -r)
count=0
said=/tmp/said

# check NAME COMMAND...; lines that begin with `#` are shown always
check() {
    name=$1
    shift
    count=$((count + 1))
    if "$@" >$said 2>&1; then
        echo "ok $count - $release: $name"
        grep '^#' $said
    else
        echo "not ok $count - $release: $name"
        sed 's/^/#   /' $said
    fi
}
