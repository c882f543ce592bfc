# SPDX-License-Identifier: Apache-2.0
#
# The one Makefile. Objects, archives and programs of a flavour live in build/<flavour>/, so that
# release, debug, asan, tsan and fuzz never mix. Each folder becomes one archive, and its unit tests
# link that archive and what stands below it: a dependency upwards does not link.
#
# Variables worth setting: CC (gcc or clang), CFLAGS and LDFLAGS (appended), WERROR= (warnings do not
# stop the build), HARDEN= (drop the hardening flags), BUILD (another build folder), PREFIX and
# DESTDIR (install), V=1 (show the commands).

VERSION := 0.1.0

ifeq ($(origin CC),default)
CC := gcc
endif
FUZZ_CC ?= clang
AR ?= ar
BUILD ?= build
PREFIX ?= /usr/local
WERROR ?= -Werror
CLANG_FORMAT ?= $(firstword $(shell command -v clang-format-14 clang-format) clang-format)
CLANG_TIDY ?= $(firstword $(shell command -v clang-tidy-14 clang-tidy) clang-tidy)
CPPCHECK ?= cppcheck
Q := $(if $(V),,@)

# ---- Flags -----------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
            -Wpointer-arith -Wvla $(WERROR) \
            -Werror=incompatible-pointer-types -Werror=implicit-function-declaration
HARDEN ?= -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong
DEFINES := -D_GNU_SOURCE -DNEARSIDE_VERSION='"$(VERSION)"'

# A copy of hiredis under .deps (scripts/get-hiredis.sh) goes before the distribution's, and is
# linked by path so that an old libhiredis.so cannot be picked by mistake.
HIREDIS_A := $(firstword $(wildcard .deps/usr/lib/*/libhiredis.a .deps/usr/lib/libhiredis.a))
ifneq ($(HIREDIS_A),)
HIREDIS_CFLAGS := -isystem .deps/usr/include
HIREDIS_LIBS := $(HIREDIS_A)
else ifeq ($(shell pkg-config --atleast-version=1.0 hiredis 2>/dev/null && echo yes),yes)
HIREDIS_LIBS := -lhiredis
endif

# libev and mimalloc have no .pc file. Nothing may refer to a symbol of mimalloc's in a test, so the
# linker is told to keep it; sanitizer flavours leave it out (it would hide errors from them).
MIMALLOC_LIBS := -Wl,--push-state,--no-as-needed -lmimalloc -Wl,--pop-state
INIH_LIBS := $(or $(shell pkg-config --libs inih 2>/dev/null),-linih)
LIBS := $(HIREDIS_LIBS) $(INIH_LIBS) -lev -lm

FLAVOURS := release debug asan tsan fuzz mutant

# Instrumented code makes gcc warn of what cannot happen: warnings are judged in release.
CHECKED := -Wno-error -DNEARSIDE_LIBC_MALLOC -DNEARSIDE_DEBUG -fno-omit-frame-pointer
SAN_ADDRESS := -fsanitize=address,undefined -fno-sanitize-recover=all

FLAGS_release := -O2 -g $(HARDEN)
FLAGS_debug := -O0 -g3 -DNEARSIDE_DEBUG
FLAGS_asan := -O1 -g $(SAN_ADDRESS) $(CHECKED)
FLAGS_tsan := -O1 -g -fsanitize=thread $(CHECKED)
FLAGS_mutant := -O1 -g -DNEARSIDE_MUTANTS -Wno-error
FLAGS_fuzz := -O1 -g -fsanitize=fuzzer-no-link $(SAN_ADDRESS) $(CHECKED)

LINK_release := $(MIMALLOC_LIBS) -Wl,-z,relro,-z,now
LINK_debug := $(MIMALLOC_LIBS)
LINK_asan := $(SAN_ADDRESS)
LINK_tsan := -fsanitize=thread
LINK_fuzz := $(SAN_ADDRESS)
LINK_mutant := $(MIMALLOC_LIBS)

# The program is optimised as a whole: a tenth fewer instructions per fill. Its objects can be linked
# without that, too, which takes a test less time; those of another version of gcc cannot be linked so. clang
# wants a linker of its own for it. CFLAGS=-fno-lto does without.
CC_VERSION := $(shell $(CC) --version 2>/dev/null | head -n 1)
ifeq ($(findstring clang,$(CC_VERSION)),)
WHOLE_release := -flto -ffat-lto-objects
LINK_WHOLE_release := -flto=auto
LINK_PARTS_release := -fno-lto
endif

$(foreach f,$(FLAVOURS),$(eval CC_$(f) := $(if $(filter fuzz,$(f)),$(FUZZ_CC),$(CC))))
compile = $(CC_$(1)) -std=gnu11 $(DEFINES) $(HIREDIS_CFLAGS) $(WARNINGS) -pthread $(FLAGS_$(1)) \
          $(2) $(CFLAGS)
link = $(CC_$(1)) -pthread $(LINK_$(1)) $(or $(2),$(LINK_PARTS_$(1))) $(LDFLAGS)

# ---- Sources ---------------------------------------------------------------------------------

FOLDERS := conf resp l1 upstream invalidation proxy

# What a folder's archive needs at link time: itself first, then what stands below it.
LINKS_conf := conf
LINKS_resp := resp conf
LINKS_l1 := l1 resp conf
LINKS_upstream := upstream resp conf
LINKS_invalidation := invalidation upstream l1 resp conf
LINKS_proxy := proxy invalidation upstream l1 resp conf

SRC := $(sort $(wildcard $(addsuffix /*.c,$(FOLDERS))))
SUPPORT_SRC := $(sort $(wildcard tests/support/*.c))
MODULE_SRC := tests/module/module.c tests/module/names.c
INTEGRATION_SRC := $(sort $(wildcard tests/integration/*.c tests/integration/regress/*.c \
                   tests/coherence/test_*.c))
CHECKER_SRC := $(sort $(filter-out tests/coherence/test_%.c,$(wildcard tests/coherence/*.c)))
RACE_SRC := $(sort $(wildcard tests/race/race_*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
BENCH_SRC := $(sort $(wildcard tests/bench/bench_*.c))
LOAD_SRC := $(sort $(wildcard tests/bench/load*.c))
CEILING_SRC := tests/bench/ceiling.c
CLIENT_SRC := tests/clients/hiredis.c
UNIT_FOLDERS := $(foreach d,$(FOLDERS),$(if $(wildcard tests/unit/$(d)/*.c),$(d)))
unit_src = $(sort $(wildcard tests/unit/$(1)/*.c))

TEST_SRC := $(SUPPORT_SRC) $(INTEGRATION_SRC) $(CHECKER_SRC) $(RACE_SRC) $(FUZZ_SRC) $(BENCH_SRC) \
            $(LOAD_SRC) $(CEILING_SRC) $(CLIENT_SRC) \
            $(foreach d,$(UNIT_FOLDERS),$(call unit_src,$(d)))
HEADERS := $(sort $(wildcard $(addsuffix /*.h,$(FOLDERS)) tests/*/*.h tests/unit/*/*.h))
ALL_C := $(SRC) $(TEST_SRC) $(MODULE_SRC)

RACES := $(notdir $(RACE_SRC:.c=))
FUZZERS := $(notdir $(FUZZ_SRC:.c=))
BENCHES := $(notdir $(BENCH_SRC:.c=))

# ---- Programs --------------------------------------------------------------------------------

# objects(flavour, sources), archives(flavour, folders)
objects = $(patsubst %.c,$(BUILD)/$(1)/obj/%.o,$(2))
archives = $(foreach d,$(2),$(BUILD)/$(1)/lib$(d).a)
nearside = $(BUILD)/$(1)/nearside
unit_tests = $(addprefix $(BUILD)/$(1)/tests/unit_,$(UNIT_FOLDERS))
race_tests = $(addprefix $(BUILD)/$(1)/tests/,$(RACES))
CHECKER := $(BUILD)/release/tests/checker
LOAD := $(BUILD)/release/bench/load
CEILING := $(BUILD)/release/bench/ceiling
INTEGRATION := $(if $(INTEGRATION_SRC),$(BUILD)/release/tests/integration)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:
.PHONY: all release debug libs FORCE

all: release ## build/release/nearside (the default)

release debug: %: $(BUILD)/%/nearside ## the program of that flavour

libs: $(call archives,release,$(FOLDERS)) ## the archives of the folders only

# Says what to run instead of failing at the first #include.
.PHONY: need-hiredis
need-hiredis:
	@$(if $(HIREDIS_LIBS),:,echo 'hiredis >= 1.0 is missing: run scripts/deps.sh (or only' \
	    'scripts/get-hiredis.sh), then make again.' >&2; exit 1)

# folder_archive(flavour, folder): main.o stays outside, so that tests bring a main of their own.
define folder_archive
$(call archives,$(1),$(2)): \
        $(call objects,$(1),$(filter-out proxy/main.c,$(filter $(2)/%,$(SRC))))
	@echo '  AR      $$@'
	$(Q)mkdir -p $$(@D) && rm -f $$@ && $(AR) rcs $$@ $$^
endef

# unit_test(flavour, folder)
define unit_test
$(BUILD)/$(1)/tests/unit_$(2): $(call objects,$(1),$(call unit_src,$(2))) \
        $(BUILD)/$(1)/libsupport.a $(call archives,$(1),$(LINKS_$(2)))
	@echo '  LINK    $$@'
	$(Q)mkdir -p $$(@D) && $(call link,$(1)) -o $$@ $$^ $(LIBS) -lcriterion
endef

# flavour(name): the rules of one flavour
define flavour
$(BUILD)/$(1)/flags: FORCE
	@$$(shell mkdir -p $$(@D))$$(file >$$@.new,$(call compile,$(1),$(WHOLE_$(1))) | \
	    $(call link,$(1)) $(LINK_WHOLE_$(1)) | $$(CC_VERSION))
	@cmp -s $$@.new $$@ && rm $$@.new || mv $$@.new $$@

$(BUILD)/$(1)/obj/%.o: %.c $(BUILD)/$(1)/flags | need-hiredis
	@echo '  CC      $$@'
	$(Q)mkdir -p $$(@D) && $(call compile,$(1),$$(WHOLE)) -MMD -MP -c -o $$@ $$<

$(call objects,$(1),$(SRC)): WHOLE = $(WHOLE_$(1))

$(foreach d,$(FOLDERS),$(eval $(call folder_archive,$(1),$(d))))
$(foreach d,$(UNIT_FOLDERS),$(eval $(call unit_test,$(1),$(d))))

$(BUILD)/$(1)/libsupport.a: $(call objects,$(1),$(SUPPORT_SRC))
	@echo '  AR      $$@'
	$(Q)mkdir -p $$(@D) && rm -f $$@ && $(AR) rcs $$@ $$^

$(BUILD)/$(1)/nearside: $(BUILD)/$(1)/obj/proxy/main.o $(call archives,$(1),$(LINKS_proxy))
	@echo '  LINK    $$@'
	$(Q)$(call link,$(1),$(LINK_WHOLE_$(1))) -o $$@ $$^ $(LIBS)

$(BUILD)/$(1)/tests/integration: $(call objects,$(1),$(INTEGRATION_SRC) $(SUPPORT_SRC)) \
        $(call archives,$(1),$(LINKS_proxy)) | $(MODULE_SRC:tests/module/%.c=$(BUILD)/$(1)/tests/%.so)
	@echo '  LINK    $$@'
	$(Q)mkdir -p $$(@D) && $(call link,$(1)) -o $$@ $$^ $(LIBS) -lcriterion

# For redis-server to load, and for the proxy.
$(BUILD)/$(1)/tests/%.so: tests/module/%.c $(BUILD)/$(1)/flags
	@echo '  LINK    $$@'
	$(Q)mkdir -p $$(@D) && $(call compile,$(1)) -fPIC -shared -o $$@ $$<

$(BUILD)/$(1)/tests/checker: $(call objects,$(1),$(CHECKER_SRC)) $(BUILD)/$(1)/libsupport.a
	@echo '  LINK    $$@'
	$(Q)mkdir -p $$(@D) && $(call link,$(1)) -o $$@ $$^

$(BUILD)/$(1)/bench/load: $(call objects,$(1),$(LOAD_SRC))
	@echo '  LINK    $$@'
	$(Q)mkdir -p $$(@D) && $(call link,$(1)) -o $$@ $$^ -lm

$(BUILD)/$(1)/bench/ceiling: $(call objects,$(1),$(CEILING_SRC))
	@echo '  LINK    $$@'
	$(Q)mkdir -p $$(@D) && $(call link,$(1)) -o $$@ $$^

$(addprefix $(BUILD)/$(1)/tests/,$(RACES)): $(BUILD)/$(1)/tests/%: \
        $(BUILD)/$(1)/obj/tests/race/%.o $(call archives,$(1),$(LINKS_proxy))
	@echo '  LINK    $$@'
	$(Q)mkdir -p $$(@D) && $(call link,$(1)) -o $$@ $$^ $(LIBS)

$(addprefix $(BUILD)/$(1)/bench/,$(BENCHES)): $(BUILD)/$(1)/bench/%: \
        $(BUILD)/$(1)/obj/tests/bench/%.o $(call archives,$(1),$(LINKS_proxy))
	@echo '  LINK    $$@'
	$(Q)mkdir -p $$(@D) && $(call link,$(1)) -o $$@ $$^ $(LIBS)
endef
$(foreach f,$(FLAVOURS),$(eval $(call flavour,$(f))))

$(addprefix $(BUILD)/fuzz/,$(FUZZERS)): $(BUILD)/fuzz/%: \
        $(BUILD)/fuzz/obj/tests/fuzz/%.o $(call archives,fuzz,$(LINKS_proxy))
	@echo '  LINK    $@'
	$(Q)$(call link,fuzz) -fsanitize=fuzzer -o $@ $^ $(LIBS)

-include $(foreach f,$(FLAVOURS),$(patsubst %.o,%.d,$(call objects,$(f),$(ALL_C))))

# ---- Tests -----------------------------------------------------------------------------------

.PHONY: test unit integration test-programs asan asan-unit asan-integration
.PHONY: tsan tsan-race tsan-load race race-programs clients fuzz fuzzers bench bench-programs
.PHONY: bench-load bench-gate bench-test
.PHONY: differential follow versions

test: unit integration ## unit and integration tests on the release flavour

test-programs: release $(call unit_tests,release) $(INTEGRATION) $(CHECKER) $(BUILD)/clients/hiredis

unit: $(call unit_tests,release) ## unit tests only (unit-conf, unit-l1 ...: one folder)
	scripts/run_tests criterion $^

$(addprefix unit-,$(UNIT_FOLDERS)): unit-%: $(BUILD)/release/tests/unit_%
	scripts/run_tests criterion $^

integration: $(call nearside,release) $(INTEGRATION) ## against real servers
	NEARSIDE_BIN=$(call nearside,release) scripts/run_tests criterion $(INTEGRATION)

versions: $(call nearside,release) $(INTEGRATION) $(BUILD)/servers/done ## integration tests on Redis 8 and Valkey 8
	status=0; for name in redis valkey; do \
	    echo "$$name:"; PATH=$(abspath $(BUILD))/servers/$$name:$$PATH \
	    NEARSIDE_BIN=$(call nearside,release) scripts/run_tests criterion $(INTEGRATION) || status=1; \
	done; exit $$status

$(BUILD)/servers/done: scripts/get-servers.sh
	$(Q)$< $(@D) && touch $@

differential: $(call nearside,release) ## the same commands to Redis and through Nearside, DIFF_SECONDS (60)
	NEARSIDE_BIN=$(call nearside,release) \
	    /usr/bin/python3 -B tests/differential/run.py --seconds $(or $(DIFF_SECONDS),60)

follow: $(call nearside,release) ## every command is seen by reads through Nearside, FOLLOW_SECONDS (30)
	NEARSIDE_BIN=$(call nearside,release) \
	    /usr/bin/python3 -B tests/differential/follow.py --seconds $(or $(FOLLOW_SECONDS),30)
	NEARSIDE_BIN=$(call nearside,release) \
	    /usr/bin/python3 -B tests/differential/follow.py --seconds $(or $(FOLLOW_SECONDS),30) --cluster

asan: asan-unit asan-integration ## all tests under AddressSanitizer and UBSan

asan-unit: $(call unit_tests,asan)
	scripts/run_tests criterion $^

# The proxy is the sanitised one; the test runner that drives it is not.
asan-integration: $(call nearside,asan) $(INTEGRATION)
	NEARSIDE_BIN=$(call nearside,asan) NEARSIDE_SANITIZED=1 NEARSIDE_SLOWDOWN=4 \
	    scripts/run_tests criterion $(INTEGRATION)

tsan: tsan-race tsan-load ## race programs and the proxy under load, under ThreadSanitizer

export UBSAN_OPTIONS ?= print_stacktrace=1

# ThreadSanitizer of gcc 12 and clang 14 does not start where the kernel randomises 32 bits of an
# address; setarch -R, where it is allowed, turns that off.
TSAN_RUN := $(shell setarch -R true 2>/dev/null && echo setarch -R)

tsan-race: $(call race_tests,tsan)
	$(TSAN_RUN) scripts/run_tests plain $^

tsan-load: $(call nearside,tsan)
	$(TSAN_RUN) scripts/tsan_load $<

# The promises of coherence, judged under load and trouble; and that the tests would notice if a rule
# were missing. See tests/coherence/README.md.
MUTANT_UNITS := $(addprefix $(BUILD)/mutant/tests/unit_,l1 invalidation)

.PHONY: coherence asan-coherence tsan-coherence coherence-moves tsan-moves mutants mutant

coherence: $(call nearside,release) $(CHECKER) ## the checker for COHERENCE_SECONDS (60)
	NEARSIDE_BIN=$< $(CHECKER) --seconds $(or $(COHERENCE_SECONDS),60) $(CHECKER_ARGS)

asan-coherence: $(call nearside,asan) $(CHECKER) ## the same under AddressSanitizer (20 s)
	NEARSIDE_BIN=$< NEARSIDE_SANITIZED=1 NEARSIDE_SLOWDOWN=4 \
	    $(CHECKER) --seconds $(or $(COHERENCE_SECONDS),20) $(CHECKER_ARGS)

UNDER_TSAN = NEARSIDE_SANITIZED=1 NEARSIDE_SLOWDOWN=4 TSAN_OPTIONS="exitcode=66 $$TSAN_OPTIONS" $(TSAN_RUN)

tsan-coherence: $(call nearside,tsan) $(CHECKER) ## the same under ThreadSanitizer (20 s)
	NEARSIDE_BIN=$< $(UNDER_TSAN) $(CHECKER) --seconds $(or $(COHERENCE_SECONDS),20) $(CHECKER_ARGS)

# In front of a cluster and behind sentinels: slots move, nodes come and go, replicas take over.
check_moves = status=0; for mode in cluster sentinel; do NEARSIDE_BIN=$< $(1) $(CHECKER) --mode $$mode \
	    --seconds $(or $(COHERENCE_SECONDS),30) $(CHECKER_ARGS) || status=1; done; exit $$status

coherence-moves: $(call nearside,release) $(CHECKER) ## the checker with clusters and sentinels (30 s each)
	$(call check_moves)

tsan-moves: CHECKER_ARGS += --set upstream.read_from=prefer-replica
tsan-moves: $(call nearside,tsan) $(CHECKER) ## the same under ThreadSanitizer, with reads from replicas
	$(call check_moves,$(UNDER_TSAN))

mutant: $(call nearside,mutant) ## the program with rules that can be switched off

mutants: mutant $(MUTANT_UNITS) $(INTEGRATION) ## each rule off, and a scenario that fails then
	tests/coherence/mutants $(BUILD)

race-programs: $(call race_tests,release)

race: race-programs ## race programs at full speed, without a sanitizer
	scripts/run_tests plain $(call race_tests,release)

# Real clients. The npm ones come from the registry, as the lock file says, into the build folder. They
# declare Node 20; all of the tests pass on Debian 12's Node 18 too, and npm only warns.
clients: $(call nearside,release) $(BUILD)/clients/hiredis $(BUILD)/clients/npm.done ## real clients
	NEARSIDE_BIN=$${NEARSIDE_BIN-$<} tests/clients/run --build $(BUILD)/clients

$(BUILD)/clients/hiredis: $(call objects,release,$(CLIENT_SRC))
	@echo '  LINK    $@'
	$(Q)mkdir -p $(@D) && $(call link,release) -o $@ $^ $(LIBS)

$(BUILD)/clients/npm.done: tests/clients/package.json tests/clients/package-lock.json
	$(Q)mkdir -p $(@D) && cp $^ $(@D)
	$(Q)cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund && touch $(@F)

fuzzers: $(addprefix $(BUILD)/fuzz/,$(FUZZERS))

fuzz: fuzzers ## each fuzz target for FUZZ_SECONDS (15) over a copy of its corpus
	scripts/fuzz $(BUILD)/fuzz $(or $(FUZZ_SECONDS),15)

bench-programs: $(addprefix $(BUILD)/release/bench/,$(BENCHES)) bench-load

bench-load: $(LOAD) $(CEILING)

bench: bench-programs ## micro benchmarks, one line each
	@set -e; for b in $(BENCHES); do $(BUILD)/release/bench/$$b; done

bench-test: $(LOAD) $(CEILING) ## that the load generator notices wrong values
	/usr/bin/python3 -B tests/bench/test_load.py $^

bench-gate: $(call nearside,release) $(LOAD) ## instructions per hit, forwarded command and fill
	scripts/bench --gate

# ---- Source care -----------------------------------------------------------------------------

.PHONY: fmt fmt-check lint lint-tidy lint-cppcheck lint-rules compile_commands sample sample-check

fmt: ## formats all C files in place
	$(CLANG_FORMAT) -i $(ALL_C) $(HEADERS)

fmt-check: ## fails when fmt would change something
	$(CLANG_FORMAT) --dry-run -Werror $(ALL_C) $(HEADERS)

lint: lint-rules lint-cppcheck lint-tidy ## clang-tidy, cppcheck, include and size rules

lint-rules:
	scripts/check_includes
	scripts/check_sizes

lint-cppcheck:
	@mkdir -p $(BUILD)/cppcheck
	$(CPPCHECK) --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
	    --error-exitcode=1 --suppress=missingIncludeSystem --cppcheck-build-dir=$(BUILD)/cppcheck \
	    $(DEFINES) $(SRC)

lint-tidy: compile_commands.json
	printf '%s\n' $(SRC) | xargs -P $$(nproc) -n 1 $(CLANG_TIDY) --quiet -p .

compile_commands: compile_commands.json ## for editors and clang-tidy

# As the release flavour compiles.
compile_commands.json: Makefile $(ALL_C) | need-hiredis
	$(Q)scripts/compile_commands '$(subst ','\'',$(call compile,release))' $(ALL_C) >$@.new
	$(Q)mv $@.new $@

sample: $(call nearside,release) ## writes proxy.ini.sample from the table of options
	$(Q)$< --print-sample >$(BUILD)/proxy.ini.sample
	$(Q)mv $(BUILD)/proxy.ini.sample proxy.ini.sample

sample-check: $(call nearside,release) ## fails when proxy.ini.sample is out of date
	$(Q)$< --print-sample >$(BUILD)/proxy.ini.sample
	$(Q)diff -u proxy.ini.sample $(BUILD)/proxy.ini.sample

# ---- Everything else -------------------------------------------------------------------------

.PHONY: check install uninstall clean help

check: ## all of the above, as CI runs it
	scripts/check

install: $(call nearside,release) ## to $(DESTDIR)$(PREFIX)
	install -D -m 755 $< $(DESTDIR)$(PREFIX)/bin/nearside
	install -d $(DESTDIR)$(PREFIX)/share/doc/nearside
	install -m 644 README.md LICENSE proxy.ini.sample $(DESTDIR)$(PREFIX)/share/doc/nearside

uninstall: ## what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/nearside
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/nearside

clean: ## removes build/ and compile_commands.json
	rm -rf $(BUILD) compile_commands.json

help: ## this list
	@sed -n 's/^\([a-z][a-z _-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	    while IFS='|' read -r name text; do printf '  %-18s %s\n' "$$name" "$$text"; done
