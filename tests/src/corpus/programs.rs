//! The programs of the corpus, with the flags of each build.
//!
//! Every build is what a distribution would ship, position independent with debug information; OLD and NEW of
//! a step are built in the same directory. Where `configure` writes the flags down, it adds variables of make to them:
//! a build with more flags then needs no other configuration.

use super::recipe::{Grouping, Recipe};

/// redis 7.0 with the security fixes of its Debian package.
pub const REDIS: Recipe = Recipe {
    key: "redis7",
    package: "redis",
    version: "5:7.0.15-1~deb12u10",
    first_patch: "0001-Apply-security-fixes-for-CVEs-1113",
    grouping: Grouping::Each,
    configure: "true",
    reconfigure: None,
    // Fixes of the bundled Lua reach the server only when the libraries are made again and it is
    // linked again: its own Makefile does neither.
    make: "F=\"MALLOC=libc OPTIMIZATION=-O2\"; \
           if [ -f src/.make-settings ]; then \
             make -C deps -j2 $F CFLAGS='-fPIE -g@CC@' LDFLAGS='-pie@LD@' hiredis linenoise lua hdr_histogram; \
             rm -f src/redis-server; \
           fi; \
           make -j2 $F CFLAGS='-fPIE -g@CC@' LDFLAGS='-pie@LD@'",
    keep: &["src/redis-server", "src/redis-benchmark", "src/redis-cli"],
    clean: "make distclean",
    needs: &["tcl"],
};

/// nginx 1.22 with its Debian fixes.
pub const NGINX: Recipe = Recipe {
    key: "nginx122",
    package: "nginx",
    version: "1.22.1-9+deb12u9",
    first_patch: "CVE-2025-23419",
    grouping: Grouping::Each,
    // It prints the arguments of its configure: no flags of others among them.
    configure: "./configure --with-debug --with-http_v2_module --with-http_ssl_module \
                --with-http_mp4_module --with-http_dav_module --with-mail --with-mail_ssl_module \
                --with-stream --with-stream_ssl_module --with-http_realip_module \
                --with-cc-opt='-O2 -g -fPIE' --with-ld-opt=-pie && \
                sed -i 's|-fPIE|& $(MORE_CC)|; s|-pie|& $(MORE_LD)|' objs/Makefile",
    // The list of modules is made by configure.
    reconfigure: Some("auto/"),
    make: "make -j2 MORE_CC='@CC@' MORE_LD='@LD@'",
    keep: &["objs/nginx"],
    // Its own rule takes the configuration away, too.
    clean: "find objs -name '*.o' -delete; rm -f objs/nginx",
    needs: &["libpcre2-dev", "libpcre3-dev", "libssl-dev", "zlib1g-dev"],
};

/// memcached's one security update.
pub const MEMCACHED: Recipe = Recipe {
    key: "memcached",
    package: "memcached",
    version: "1.6.18-1+deb12u1",
    first_patch: "0008-CVE-2026-47783-CVE-2026-47784",
    grouping: Grouping::All("deb12u1"),
    configure: "./configure --enable-sasl --enable-proxy CFLAGS='-O2 -g' && \
                sed -i 's|^CFLAGS = .*|& $(MORE_CC)|; s|^LDFLAGS = .*|& $(MORE_LD)|' Makefile",
    reconfigure: None,
    // Not what only its own tests need.
    make: "make -j2 -C vendor && make -j2 memcached MORE_CC='@CC@' MORE_LD='@LD@'",
    keep: &["memcached"],
    clean: "make clean",
    needs: &["libevent-dev", "libsasl2-dev"],
};

/// tinyproxy: the smallest real server.
pub const TINYPROXY: Recipe = Recipe {
    key: "tinyproxy",
    package: "tinyproxy",
    version: "1.10.0-5+deb11u1",
    first_patch: "CVE-2023-49606",
    grouping: Grouping::Each,
    configure: "CFLAGS='-O2 -g' ./configure && \
                sed -i 's|^CFLAGS = .*|& $(MORE_CC)|; s|^LDFLAGS = .*|& $(MORE_LD)|' src/Makefile",
    reconfigure: None,
    make: "make -j2 -C src MORE_CC='@CC@' MORE_LD='@LD@'",
    keep: &["src/tinyproxy"],
    clean: "make -C src clean",
    needs: &[],
};

/// civetweb: a web server of threads, each of which stays in one function for its life.
pub const CIVETWEB: Recipe = Recipe {
    key: "civetweb",
    package: "civetweb",
    version: "1.15+dfsg-4",
    first_patch: "soversion",
    grouping: Grouping::Each,
    configure: "true",
    reconfigure: None,
    // Its own Makefile is not in the package; these are all its sources.
    make: "gcc -O2 -g -fPIE@CC@ -Iinclude -DNO_SSL -DNDEBUG -o civetweb src/civetweb.c src/main.c \
           -pie@LD@ -lpthread -ldl",
    keep: &["civetweb"],
    clean: "rm -f civetweb",
    needs: &[],
};

/// vsftpd: a process for each session.
pub const VSFTPD: Recipe = Recipe {
    key: "vsftpd",
    package: "vsftpd",
    version: "3.0.5-0.2",
    first_patch: "0004-link-local",
    grouping: Grouping::Each,
    configure: "true",
    reconfigure: None,
    // Its Makefile knows no headers: a changed one must not leave objects of two layouts.
    make: "case \"$(quilt files || true)\" in *.h*) make clean;; esac; \
           make -j2 CFLAGS='-O2 -g -fPIE@CC@' LINK='-pie@LD@' \
           LIBS='-lwrap -lpam -lcrypt -lcap -lssl -lcrypto'",
    keep: &["vsftpd"],
    clean: "make clean",
    needs: &["libwrap0-dev", "libpam0g-dev", "libcap-dev", "libcrypt-dev", "libssl-dev"],
};

/// pgbouncer: its first step changes data alone.
pub const PGBOUNCER: Recipe = Recipe {
    key: "pgbouncer",
    package: "pgbouncer",
    version: "1.18.0-1+deb12u1",
    first_patch: "CVE-2025-2291",
    grouping: Grouping::Each,
    configure: "./configure --without-cares --without-openssl CFLAGS='-O2 -g' && \
                sed -i 's|^CFLAGS = .*|& $(MORE_CC)|; s|^LDFLAGS = .*|& $(MORE_LD)|' config.mak",
    reconfigure: None,
    make: "make -j2 MORE_CC='@CC@' MORE_LD='@LD@'",
    keep: &["pgbouncer"],
    clean: "make clean",
    needs: &["libevent-dev", "pkg-config"],
};

/// dnsmasq: nearly everything is inlined into `main`, which is always on the stack.
pub const DNSMASQ: Recipe = Recipe {
    key: "dnsmasq285",
    package: "dnsmasq",
    version: "2.85-1+deb11u2",
    first_patch: "CVE-2022-0934",
    grouping: Grouping::Each,
    configure: "true",
    reconfigure: None,
    make: "make -j2 CFLAGS='-O2 -g -fPIE@CC@' LDFLAGS='-pie@LD@' COPTS='-DHAVE_DNSSEC'",
    keep: &["src/dnsmasq"],
    clean: "make clean",
    needs: &["nettle-dev", "libgmp-dev", "pkg-config"],
};

/// libssl and libcrypto, two upstream releases.
pub const OPENSSL: Recipe = Recipe {
    key: "openssl3",
    package: "openssl",
    version: "3.0.20-1~deb12u2",
    first_patch: "",
    grouping: Grouping::Tarballs(&["3.0.20", "3.0.22"]),
    configure: "CFLAGS='-O2 -g' ./config shared no-tests",
    reconfigure: None,
    make: "make -j2 build_generated && make -j2 libcrypto.so libssl.so apps/openssl",
    keep: &["libcrypto.so.3", "libssl.so.3", "apps/openssl"],
    clean: "make clean",
    needs: &["perl"],
};

/// PostgreSQL's server alone: what a cluster needs else is the package's.
pub const POSTGRESQL: Recipe = Recipe {
    key: "postgresql15",
    package: "postgresql-15",
    version: "15.18-0+deb12u1",
    first_patch: "",
    // A function of SQL that answers otherwise.
    grouping: Grouping::Edit(
        "ascii",
        "grep -q 'PG_RETURN_INT32((int32) \\*data);' src/backend/utils/adt/oracle_compat.c && \
         sed -i 's/PG_RETURN_INT32((int32) \\*data);/PG_RETURN_INT32((int32) *data + 1);/' \
         src/backend/utils/adt/oracle_compat.c",
    ),
    // The directories are where the package has its share of what it needs.
    configure: "./configure --prefix=/usr/lib/postgresql/15 --datadir=/usr/share/postgresql/15 \
                --with-system-tzdata=/usr/share/zoneinfo --without-readline --without-zlib \
                CFLAGS='-O2 -g'",
    reconfigure: None,
    // Its top Makefile, which is not used, knows this order.
    make: "make -C src/backend generated-headers && make -j2 -C src/port && make -j2 -C src/common && \
           make -j2 -C src/backend",
    keep: &["src/backend/postgres"],
    clean: "make clean",
    needs: &["bison", "flex", "perl", "postgresql-15"],
};

/// Every recipe, in the order in which the suites build them.
pub const ALL: &[Recipe] =
    &[MEMCACHED, TINYPROXY, CIVETWEB, NGINX, REDIS, VSFTPD, PGBOUNCER, DNSMASQ, OPENSSL];
