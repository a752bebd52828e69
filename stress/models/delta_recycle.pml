/* Recycling of the delta index and of the table root against readers (csrc/delta.c, csrc/segment.h at dbz_prefix).
 *
 * One object that every commit changes. The writer appends an entry, publishes, and rotates when it likes and no frozen generation exists; the checkpointer merges the
 * frozen generation into a new root, puts it in force, retires the generation and gives its memory back, where the next rotation finds it. There are
 * three chunks of memory, so that they are recycled at once. The reader looks up the newest entry at or below the state it saw published.
 *
 * Proved: a reader whose gens and root_no are the same after the lookup as before it got the right answer: the entry of exactly its state, or a table
 * entry that isn't older (it goes down the version chain from a newer one). Also: a chunk never belongs to two generations.
 *
 * Mutations that must fail: NO_RECHECK (the reader doesn't look at the words again), FREE_FIRST (memory is given back before gens has moved), RETIRE_FIRST (the
 * generation is retired before the root that has its entries is in force), ROOT_IN_PLACE (the root in force is overwritten),
 * HEAD_FIRST (an entry is made reachable before it is written). */

#define COMMITS 3
#define CHUNKS 3
#define ROOM 2
#define LOOKUPS 1

byte count[CHUNKS];             /* reachable entries of a chunk: stands for the bucket head */
byte entry[CHUNKS * ROOM];      /* state of each entry */
byte addr[CHUNKS * ROOM];       /* and its address, which is always the same number */
byte owner[CHUNKS];             /* chunk map: 0 free, generation index + 1 */
byte chunk[2];                  /* chunk + 1 of generation 0 and 1, 0: none */
byte gens = 0;                  /* counter << 1 | frozen present */
byte root_no = 0, root[2];      /* state the table has */
byte published = 0;
bool checkpoint_lock = false;
byte filled = 0;                /* entries in the active generation: private to the writer */

#define ACTIVE(g) ((g >> 1) & 1)

inline claim(g, c)
{
    c = 0;
    do
    :: atomic { c < CHUNKS && owner[c] == 0 -> owner[c] = g + 1 }; break
    :: c < CHUNKS && owner[c] != 0 -> c++
    :: c >= CHUNKS -> break
    od
}

proctype Writer()
{
    byte c, g, state;
    do
    :: state < COMMITS ->
        g = ACTIVE(gens);
        if
        :: chunk[g] == 0 ->                 /* reserve */
            claim(g, c);
            (c < CHUNKS);
            count[c] = 0;                   /* zero the heads, then list the chunk */
            chunk[g] = c + 1;
            filled = 0
        :: else
        fi;
        c = chunk[g] - 1;
        if
        :: filled < ROOM ->
#ifdef HEAD_FIRST
            count[c] = filled + 1;
            entry[c * ROOM + filled] = state + 1;
            addr[c * ROOM + filled] = state + 1;
#else
            entry[c * ROOM + filled] = state + 1;
            addr[c * ROOM + filled] = state + 1;
            count[c] = filled + 1;
#endif
            filled++;
            state++;
            published = state
        :: filled > 0 ->                    /* rotate: at any time, at the latest when the chunk is full */
            atomic { !checkpoint_lock -> checkpoint_lock = true };
            if
            :: gens & 1 -> skip             /* DBZ_E_BUSY */
            :: else ->
                gens = ((((gens >> 1) + 1) << 1) | 1);
                filled = 0
            fi;
            checkpoint_lock = false
        fi
    :: else -> break
    od
}

inline retire(g)
{
#ifdef FREE_FIRST
    d_step { c = chunk[1 - ACTIVE(g)]; if :: c != 0 -> owner[c - 1] = 0 :: else fi };
    chunk[1 - ACTIVE(g)] = 0;
    gens = g - 1
#else
    gens = g - 1;
    c = chunk[1 - ACTIVE(g)];
    chunk[1 - ACTIVE(g)] = 0;
    if :: c != 0 -> assert(owner[c - 1] == 2 - ACTIVE(g)); owner[c - 1] = 0 :: else fi
#endif
}

proctype Checkpointer()
{
    byte g, c, newest, no;
end:
    do
    :: (gens & 1) ->
        /* merge: the frozen generation doesn't change */
        g = gens;
        no = root_no;
        newest = root[no & 1];
        c = chunk[1 - ACTIVE(g)];
        if :: c != 0 && count[c - 1] != 0 -> newest = entry[(c - 1) * ROOM + count[c - 1] - 1] :: else fi;
        atomic { !checkpoint_lock -> checkpoint_lock = true };
#ifdef RETIRE_FIRST
        retire(g);
#endif
#ifdef ROOT_IN_PLACE
        root[no & 1] = 0;
        root[no & 1] = newest;
#else
        root[(no + 1) & 1] = newest;
        root_no = no + 1;
#endif
#ifndef RETIRE_FIRST
        retire(g);
#endif
        checkpoint_lock = false
    od
}

inline search(g)
{
    if
    :: got == 0 ->
        c = chunk[g];
        if
        :: c != 0 ->
            i = count[c - 1];
            do
            :: i > 0 && got == 0 ->
                i--;
                seen = entry[(c - 1) * ROOM + i];
                if :: seen <= state -> got = seen; at = addr[(c - 1) * ROOM + i] :: else fi
            :: else -> break
            od
        :: else
        fi
    :: else
    fi
}

proctype Reader()
{
    byte state, g, no, c, i, seen, got, at, table, rounds;
    do
    :: rounds == LOOKUPS -> break
    :: else ->
        rounds++;
        state = published;
again:
        g = gens;
        no = root_no;
        got = 0;
        search(ACTIVE(g));
        if :: g & 1 -> search(1 - ACTIVE(g)) :: else fi;
        table = root[no & 1];
#ifndef NO_RECHECK
        if :: gens != g || root_no != no -> goto again :: else fi;
#endif
        if
        :: got != 0 -> assert(got == state && at == got)
        :: else -> assert(table >= state)
        fi;
        d_step { c = 0; i = 0; seen = 0; got = 0; at = 0; table = 0; g = 0; no = 0; state = 0 }
    od
}

init {
    atomic { run Writer(); run Checkpointer(); run Reader() }
}
