#!/bin/sh
# Makes the cluster at the first start, then becomes PostgreSQL. Arguments go to it (-c name=value).
# EAV_PASSWORD: the superuser's password; read at the first start only.
set -eu
umask 077
home=/var/lib/eav

if [ ! -s "$home/data/PG_VERSION" ]; then
    : "${EAV_PASSWORD:?set EAV_PASSWORD to the password that user postgres shall have}"
    # What an interrupted first start left is made anew.
    rm -rf "$home/data.new"
    printf '%s' "$EAV_PASSWORD" > "$home/password.new"
    initdb --pgdata "$home/data.new" --username postgres --pwfile "$home/password.new" \
        --auth scram-sha-256 --encoding UTF8 --locale C.UTF-8 --data-checksums
    rm -f "$home/password.new"
    {
        echo 'hostssl  all          all  all  scram-sha-256'
        echo 'hostssl  replication  all  all  scram-sha-256'
    } > "$home/data.new/pg_hba.conf"
    openssl req -new -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 3650 -subj /CN=localhost \
        -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' \
        -out "$home/data.new/server.crt" -keyout "$home/data.new/server.key"
    echo 'CREATE DATABASE eav' | postgres --single -D "$home/data.new" postgres > /dev/null
    mv "$home/data.new" "$home/data"
fi
unset EAV_PASSWORD

exec postgres -D "$home/data" -c listen_addresses='*' -c port=5432 -c unix_socket_directories= "$@"
