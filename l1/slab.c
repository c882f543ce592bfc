/* SPDX-License-Identifier: Apache-2.0
 *
 * slab.c: the memory of a shard's entries: pages, each cut into slots of one size.
 *
 *        bare ──memory wanted──► free ──first slot──► cut for a class ──last slot freed──► free
 *          ▲                      │                                                         │
 *          └───────given back─────┴─────────────────────────────────────────────────────────┘
 *
 * Why not the allocator: after a change of sizes its memory is full of holes that only the old size
 * fits, and it held 2.4 times what was accounted. Here the pages are counted, so memory is what is
 * charged, and a page can be won back: the sparsest one of the class that has most free slots is
 * *drained*: its entries are moved, a few at a time (room.c), into free slots of the same class, and
 * nothing is put there meanwhile.
 *
 * Sizes grow by an eighth (by 8 bytes below 128), and the large ones are what a page can be divided
 * into. A page is about a thousandth of the budget, but no less than 4 KiB and no more than 64: every size
 * in use may hold a page that is not full, and a small cache must not consist of those.
 *
 * A page of a new size is not prepared: slots are handed out from its beginning (`cut`), and only
 * those that come back are listed. Given back is with madvise: the addresses stay, so that a
 * reference always names memory of this shard.
 */
#include "l1_priv.h"

#include <sys/mman.h>

#define PAGES_WANTED 900 /* a thousandth, or a little more than that */
#define PAGE_MIN     ((size_t)4 * 1024)
#define PAGE_MAX     ((size_t)64 * 1024)
#define SLOT_MIN     40
/* Pages that are looked at to find a sparse one. */
#define SPARSE_LOOKS 64

/* ---- Classes ------------------------------------------------------------------------------- */

static size_t round_down(size_t n, size_t unit)
{
    return n / unit * unit;
}

static size_t step_of(size_t size)
{
    size_t step = 8;
    while (step * 16 <= size) {
        step *= 2;
    }
    return step;
}

static void add_class(struct classes *c, size_t size)
{
    bug_on(c->count == CLASSES_MAX);
    c->size[c->count] = (uint32_t)size;
    c->per_page[c->count] = (uint32_t)(c->page_size / size);
    c->count++;
}

void classes_init(struct classes *c, size_t budget)
{
    c->page_size = PAGE_MIN;
    while (c->page_size < PAGE_MAX && budget / (2 * c->page_size) >= PAGES_WANTED) {
        c->page_size *= 2;
    }
    c->page_shift = (unsigned int)__builtin_ctzll(c->page_size);
    c->count = 0;
    size_t size = SLOT_MIN;
    for (; size * 16 <= c->page_size; size += step_of(size)) {
        add_class(c, size);
    }
    for (size_t per_page = c->page_size / size; per_page >= 2; per_page--) {
        size_t largest = round_down(c->page_size / per_page, REF_UNIT);
        if (largest >= c->size[c->count - 1] + step_of(c->size[c->count - 1]) / 2) {
            add_class(c, largest);
        }
    }
    for (size_t i = 0, class = 0; i * REF_UNIT <= c->page_size / 2; i++) {
        class += i * REF_UNIT > c->size[class];
        c->of[i] = (uint8_t) class;
    }
}

/* ---- Lists of pages ------------------------------------------------------------------------ */

static void list_push(struct slab *b, uint32_t *list, uint32_t page)
{
    b->pages[page].prev = NO_PAGE;
    b->pages[page].next = *list;
    if (*list != NO_PAGE) {
        b->pages[*list].prev = page;
    }
    *list = page;
}

static void list_remove(struct slab *b, uint32_t *list, uint32_t page)
{
    struct page *p = &b->pages[page];
    if (p->prev == NO_PAGE) {
        *list = p->next;
    } else {
        b->pages[p->prev].next = p->next;
    }
    if (p->next != NO_PAGE) {
        b->pages[p->next].prev = p->prev;
    }
}

/* ---- Life ---------------------------------------------------------------------------------- */

static size_t to_page(size_t n)
{
    return round_down(n + PAGE_MAX - 1, PAGE_MAX);
}

/* The parts of the mapping, each on pages of its own: nobody's line and the ghost, heads, what is known of the pages, the
 * pages. Only the last two count what they may become; all are touched as they are used. */
bool slab_init(struct shard *s, const struct classes *c)
{
    struct slab *b = &s->slab;
    size_t ghost = to_page(NOBODY + evict_ghost_bytes(s->budget));
    size_t buckets = round_down(s->budget / SLOT_MIN * 4 / 3, BUCKETS_STEP) + BUCKETS_STEP;
    buckets = buckets < UINT32_MAX / 2 ? buckets : UINT32_MAX / 2;
    size_t heads = to_page(buckets * sizeof(*s->heads));
    size_t count = s->budget / c->page_size;
    size_t pages = to_page(count * sizeof(struct page));
    s->mapped = ghost + heads + pages + count * c->page_size;
    if (s->mapped / REF_UNIT > UINT32_MAX) {
        return false;
    }
    void *base = mmap(NULL, s->mapped, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        return false;
    }
    /* Huge pages would be charged to the process whole, for the first byte in them. */
    (void)madvise(base, s->mapped, MADV_NOHUGEPAGE);
    s->base = base;
    s->ghost.slots = (uint32_t *)(void *)(s->base + NOBODY);
    s->heads = (_Atomic uint32_t *)(void *)(s->base + ghost);
    s->table.buckets_max = (uint32_t)buckets;
    *b = (struct slab){
        .classes = c,
        .pages = (struct page *)(void *)(s->base + ghost + heads),
        .first_page = ghost + heads + pages,
        .page_count = (uint32_t)count,
        .bare = NO_PAGE,
        .free = NO_PAGE,
        .drain = NO_PAGE,
    };
    for (uint32_t i = 0; i < c->count; i++) {
        b->class[i].open = NO_PAGE;
    }
    s->used += count * sizeof(struct page);
    return true;
}

void slab_fini(struct shard *s)
{
    if (s->base != NULL) {
        munmap(s->base, s->mapped);
        s->base = NULL;
    }
}

/* ---- Pages --------------------------------------------------------------------------------- */

static char *page_at(const struct shard *s, uint32_t page)
{
    return s->base + s->slab.first_page + page * s->slab.classes->page_size;
}

static uint32_t page_of(const struct shard *s, const struct entry *e)
{
    size_t from = (size_t)((const char *)e - s->base) - s->slab.first_page;
    return (uint32_t)(from >> s->slab.classes->page_shift);
}

bool slab_has_page(const struct shard *s)
{
    return s->slab.free != NO_PAGE || s->budget - s->used >= s->slab.classes->page_size;
}

/* All of it is written soon: one call costs less than a fault for each page of the system's that it is made of. What
 * the system does not know or cannot do, the faults do. */
static void populate(const struct shard *s, uint32_t page)
{
#ifdef MADV_POPULATE_WRITE
    (void)madvise(page_at(s, page), s->slab.classes->page_size, MADV_POPULATE_WRITE);
#else
    (void)s;
    (void)page;
#endif
}

/* A page with memory and no class; NO_PAGE when the budget has none. */
static uint32_t take_page(struct shard *s)
{
    struct slab *b = &s->slab;
    uint32_t page = b->free;
    if (page != NO_PAGE) {
        list_remove(b, &b->free, page);
        b->free_count--;
        return page;
    }
    if (s->budget - s->used < b->classes->page_size) {
        return NO_PAGE;
    }
    page = b->bare;
    if (page != NO_PAGE) {
        list_remove(b, &b->bare, page);
    } else if (b->touched < b->page_count) {
        page = b->touched++;
    } else {
        return NO_PAGE;
    }
    s->used += b->classes->page_size;
    populate(s, page);
    return page;
}

bool slab_give_back(struct shard *s)
{
    struct slab *b = &s->slab;
    uint32_t page = b->free;
    if (page == NO_PAGE) {
        return false;
    }
    list_remove(b, &b->free, page);
    b->free_count--;
    (void)madvise(page_at(s, page), b->classes->page_size, MADV_DONTNEED);
    list_push(b, &b->bare, page);
    s->used -= b->classes->page_size;
    return true;
}

/* ---- Slots --------------------------------------------------------------------------------- */

static void count_free(struct slab *b, uint32_t class, uint32_t more)
{
    b->class[class].free_slots += more;
    b->free_bytes += (size_t)more * b->classes->size[class];
}

static void uncount_free(struct slab *b, uint32_t class, uint32_t fewer)
{
    b->class[class].free_slots -= fewer;
    b->free_bytes -= (size_t)fewer * b->classes->size[class];
}

bool slab_has_room(const struct shard *s, uint32_t class)
{
    return s->slab.class[class].free_slots > 0 || slab_has_page(s);
}

static bool cut_page(struct shard *s, uint32_t class)
{
    struct slab *b = &s->slab;
    uint32_t page = take_page(s);
    if (page == NO_PAGE) {
        return false;
    }
    b->pages[page] = (struct page){.class = (uint16_t) class};
    list_push(b, &b->class[class].open, page);
    count_free(b, class, b->classes->per_page[class]);
    return true;
}

/* What will be handed out next is written soon: its first lines are asked for. */
static void expect_slot(const void *slot)
{
    __builtin_prefetch(slot, 1);
    __builtin_prefetch((const char *)slot + CACHE_LINE, 1);
}

struct entry *slab_alloc(struct shard *s, uint32_t class)
{
    struct slab *b = &s->slab;
    if (b->class[class].open == NO_PAGE && !cut_page(s, class)) {
        return NULL;
    }
    uint32_t page = b->class[class].open;
    struct page *p = &b->pages[page];
    struct entry *e = entry_at(s, p->first_free);
    if (e != NULL) {
        p->first_free = e->newer;
        expect_slot(seat_of(s, p->first_free));
    } else {
        size_t size = b->classes->size[class];
        e = (struct entry *)(void *)(page_at(s, page) + (size_t)p->cut * size);
        expect_slot((const char *)e + size);
        p->cut++;
    }
    p->used++;
    uncount_free(b, class, 1);
    if (p->used == b->classes->per_page[class]) {
        list_remove(b, &b->class[class].open, page);
    }
    return e;
}

uint32_t slab_class_at(const struct shard *s, uint32_t ref)
{
    return s->slab.pages[page_of(s, entry_at(s, ref))].class;
}

size_t slab_free(struct shard *s, struct entry *e)
{
    struct slab *b = &s->slab;
    uint32_t page = page_of(s, e);
    struct page *p = &b->pages[page];
    uint32_t class = p->class;
    uint32_t per_page = b->classes->per_page[class];
    size_t size = b->classes->size[class];
    e->newer = p->first_free;
    p->first_free = ref_of(s, e);
    p->used--;
    if (page != b->drain) {
        count_free(b, class, 1);
        if (p->used == per_page - 1) {
            list_push(b, &b->class[class].open, page);
        }
    }
    if (p->used > 0) {
        return size;
    }
    if (page == b->drain) {
        b->drain = NO_PAGE;
    } else {
        uncount_free(b, class, per_page);
        list_remove(b, &b->class[class].open, page);
    }
    list_push(b, &b->free, page);
    b->free_count++;
    return size;
}

/* ---- Winning pages back -------------------------------------------------------------------- */

/* The class whose free slots would make a page and are the most; its slots are enough for what is on
 * the page, since that has at most as many used as the others have free. */
static uint32_t class_to_drain(const struct slab *b)
{
    uint32_t best = CLASSES_MAX;
    size_t most = 0;
    for (uint32_t i = 0; i < b->classes->count; i++) {
        size_t bytes = (size_t)b->class[i].free_slots * b->classes->size[i];
        if (b->class[i].free_slots >= b->classes->per_page[i] && bytes > most) {
            most = bytes;
            best = i;
        }
    }
    return best;
}

static bool begin_drain(struct slab *b)
{
    uint32_t class = class_to_drain(b);
    if (class == CLASSES_MAX) {
        return false;
    }
    uint32_t sparsest = b->class[class].open;
    uint32_t page = sparsest;
    for (int i = 0; i < SPARSE_LOOKS && page != NO_PAGE; i++) {
        if (b->pages[page].used < b->pages[sparsest].used) {
            sparsest = page;
        }
        page = b->pages[page].next;
    }
    list_remove(b, &b->class[class].open, sparsest);
    uncount_free(b, class, b->classes->per_page[class] - b->pages[sparsest].used);
    b->drain = sparsest;
    b->drain_at = 0;
    return true;
}

struct entry *slab_next_to_move(struct shard *s)
{
    struct slab *b = &s->slab;
    if (b->drain == NO_PAGE && !begin_drain(b)) {
        return NULL;
    }
    const struct page *p = &b->pages[b->drain];
    size_t size = b->classes->size[p->class];
    while (b->drain_at < p->cut) {
        struct entry *e =
            (struct entry *)(void *)(page_at(s, b->drain) + (size_t)b->drain_at * size);
        if (flags_of(e) & FLAG_LIVE) {
            /* Looked at again if it is not moved: there may be no slot just now. */
            return e;
        }
        b->drain_at++;
    }
    return NULL;
}
