# shellcheck shell=sh
# For sourcing, with $cache and $suite set: Debian packages of both architectures, whatever Debian this
# is, by an apt with lists and status of its own. Nothing is installed; apt checks what it fetches.

# Print the mirrors that this machine's apt uses for Debian and its security updates.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed 's|/*$||' | grep -m 1 "/$1\$" || echo "http://deb.debian.org/$1"
}

# apt with its own lists, so that neither the machine's suite nor its architecture matters.
private_apt() {
    APT_CONFIG=$cache/apt.conf "$@"
}

prepare_apt() {
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -f $keys ] || {
        echo "enid: $keys is missing: install debian-archive-keyring" >&2
        return 1
    }
    mkdir -p "$cache/lists/partial" "$cache/archives/partial"
    : >"$cache/status"
    cat >"$cache/sources" <<END
deb [signed-by=$keys] $(mirror debian) $suite main
deb [signed-by=$keys] $(mirror debian-security) $suite-security main
END
    cat >"$cache/apt.conf" <<END
Dir::State::lists "$cache/lists/";
Dir::State::status "$cache/status";
Dir::Cache "$cache/";
Dir::Etc::sourcelist "$cache/sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
END
    run "$cache/log" "reading Debian's package lists ($suite)" private_apt apt-get update
}
