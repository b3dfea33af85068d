#!/usr/bin/env bash
# What CI does besides `make check` and `make test`; by the Makefile's ci-targets, so it can be run anywhere:
#   pull      what DVC's remote holds of this commit         push     what this run made, to DVC's remote
#   line      the line                                       comment  .graftline/ci/comment.md, for a pull request
#   retrain   new data, the line, and a branch with its record          propose  push that branch, open a pull request
#   release   sign the bundle; RELEASE_KEY is the private key itself    publish  push the version's tag
# Settings come from the environment; what they hold is never part of a command line.
set -euo pipefail
cd "$(dirname "$0")/../.."
room=.graftline/ci
mkdir -p "$room"

# The project's DVC remote, made ready; 1 where it has none.
remote() {
  local name url kind=""
  dvc config --list > /dev/null || exit 2  # settings that cannot be read are not the same as none
  name=$(dvc config core.remote 2> /dev/null) && [ -n "$name" ] || return 1
  url=$(dvc config "remote.$name.url")
  case "$url" in s3://*) kind=s3 ;; gs://*) kind=gs ;; azure://*) kind=azure ;; esac
  if [ -n "$kind" ]; then make --no-print-directory remote "KIND=$kind"; fi
  if [ -n "${GOOGLE_CREDENTIALS_JSON:-}" ]; then
    keys=$(mktemp -d) && trap 'rm -rf "$keys"' EXIT
    (umask 077 && printf '%s' "$GOOGLE_CREDENTIALS_JSON" > "$keys/google.json")
    export GOOGLE_APPLICATION_CREDENTIALS="$keys/google.json"
  fi
  # Else DVC takes what a remote sends as what it asked for.
  dvc config --local "remote.$name.verify" true
}

pull() {
  remote || { echo "No DVC remote is set (dvc remote add --default NAME URL): nothing to pull."; return; }
  dvc pull --run-cache --allow-missing
}

push() {
  remote || { echo "No DVC remote is set: nothing to push."; return; }
  dvc push --run-cache
}

line() {
  python -m pipelines repro
}

comment() {
  local options=(--out "$room/comment.md")
  # A first push has no commit before it, and a forced one may have lost it.
  if git rev-parse --verify --quiet --end-of-options "${BASE:-HEAD}^{commit}" > /dev/null; then
    options+=(--base "${BASE:-HEAD}")
  fi
  if [ -n "${REPORT_URL:-}" ]; then options+=(--link "report=$REPORT_URL"); fi
  python -m pipelines comment "${options[@]}"
  if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$room/comment.md" >> "$GITHUB_STEP_SUMMARY"; fi
}

# A commit needs a name; CI has none.
identity() {
  git config user.name > /dev/null || export GIT_AUTHOR_NAME=graftline GIT_COMMITTER_NAME=graftline
  git config user.email > /dev/null || export GIT_AUTHOR_EMAIL=graftline@localhost GIT_COMMITTER_EMAIL=graftline@localhost
}

retrain() {
  local base branch reason frozen=()
  reason=$(printf '%s' "${REASON:-a scheduled run of CI}" | tr '\n\r' '  ')
  base=$(git rev-parse HEAD)
  branch="retrain/$(date -u +%Y%m%d-%H%M%S)"
  rm -f "$room/retrain.bundle" "$room/branch"
  while IFS= read -r -d '' one; do  # data that came by `dvc import-url`: is there newer?
    if grep -q '^frozen: true' "$one"; then frozen+=("$one"); fi
  done < <(git ls-files -z -- '*.dvc')
  if [ ${#frozen[@]} -gt 0 ]; then dvc update "${frozen[@]}"; fi
  GRAFTLINE_TRIGGER="ci: $reason" python -m pipelines repro
  if [ -z "$(git status --porcelain -- dvc.lock artifacts '*.dvc')" ]; then
    echo "Nothing changed, so there is nothing to propose."
    return
  fi
  BASE=$base comment
  identity
  git switch --quiet --create "$branch"
  git add -- dvc.lock artifacts
  if [ ${#frozen[@]} -gt 0 ]; then git add -- "${frozen[@]}"; fi
  printf 'Retrained: %s\n' "$reason" | git commit --quiet --file -
  git bundle create --quiet "$room/retrain.bundle" "$base..$branch"
  printf '%s\n' "$branch" > "$room/branch"
  echo "Committed to $branch."
}

# The job with the right to write runs this, and nothing of what was trained: it looks at what it pushes.
propose() {
  [ -f "$room/retrain.bundle" ] || { echo "Nothing to propose."; return; }
  local branch into strange
  branch=$(cat "$room/branch")
  into=${INTO:-$(git branch --show-current)}
  [[ $branch =~ ^retrain/[0-9-]+$ ]] || { echo "$room/branch names no branch of retrain" >&2; return 1; }
  git fetch --quiet --force "$room/retrain.bundle" "refs/heads/$branch:refs/proposed/$branch"
  strange=$(git diff --name-only --no-renames "HEAD...refs/proposed/$branch" |
    grep -vE '^(dvc\.lock|artifacts/[a-z_]+/metrics\.json|.*\.dvc)$' || true)
  if [ -n "$strange" ]; then
    printf 'Not pushed, for it changes what a run does not change:\n%s\n' "$strange" >&2
    return 1
  fi
  authorize
  git push --quiet "${PUSH_TO:-origin}" "refs/proposed/$branch:refs/heads/$branch"
  echo "Pushed $branch."
  if [ -z "${NO_PULL_REQUEST:-}" ]; then
    python3 infra/ci/post.py propose "$branch" "$into" "Retrained: ${REASON:-a scheduled run}" "$room/comment.md"
  fi
}

# The token goes to git by the environment: a command line can be read by every process.
authorize() {
  local host user token
  if [ -n "${GITHUB_TOKEN:-}" ]; then
    host=${GITHUB_SERVER_URL:-https://github.com} user=x-access-token token=$GITHUB_TOKEN
  elif [ -n "${GITLAB_TOKEN:-}" ]; then
    host=${CI_SERVER_URL:?} user=oauth2 token=$GITLAB_TOKEN
  else
    return 0
  fi
  export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="http.$host/.extraheader"
  GIT_CONFIG_VALUE_0="Authorization: Basic $(printf '%s:%s' "$user" "$token" | base64 -w0)"
  export GIT_CONFIG_VALUE_0
}

release() {
  local options=()
  [ -n "${RELEASE_KEY:-}" ] || { echo "RELEASE_KEY is not set: the private key of keygen, as a secret of CI" >&2; return 2; }
  keys=$(mktemp -d) && trap 'rm -rf "$keys"' EXIT
  (umask 077 && printf '%s\n' "$RELEASE_KEY" > "$keys/release.pem")
  unset RELEASE_KEY
  identity
  if [ -n "${VERSION:-}" ]; then options+=(--version "$VERSION"); fi
  python -m pipelines release --key "$keys/release.pem" "${options[@]}"
}

publish() {
  authorize
  git for-each-ref --format='%(refname)' --points-at=HEAD 'refs/tags/*@v*' | while IFS= read -r tag; do
    git push --quiet "${PUSH_TO:-origin}" "$tag"
    echo "Pushed $tag."
  done
}

case "${1:-}" in
  pull | push | line | comment | retrain | propose | release | publish) "$1" ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
