/* Takeover of the write lease, and publishing (csrc/lease.c, csrc/segment.h at dbz_prefix).
 *
 * Three holders, each with an epoch of its own, take the lease by force at any moment and publish up to two states each. Any of them may stop for ever (or for
 * a while) between any two steps: the interleavings cover the frozen, the dead, and those that come back.
 *
 * Proved: every state is published by exactly one holder; epochs never go down along the history; once a take has returned, no holder with an older epoch publishes.
 *
 * Mutations that must fail: BLIND_MOVE (the taker stores the published word instead of comparing and swapping: it can undo a state published in between),
 * NO_EPOCH_CHECK (a slow taker moves the word back to its older epoch), BLIND_PUBLISH (publishing by a store after a check). */

#define HOLDERS 3
#define LAST (2 * HOLDERS)

byte lease = 0;                 /* epoch in the lease word */
byte pub_epoch = 0, pub_state = 0;  /* one word */
byte maker[LAST + 2];           /* epoch that published a state */
byte top = 0;                   /* newest epoch whose take returned */

proctype Holder(byte epoch)
{
    byte seen, seen_epoch, seen_state, state, rounds;
    /* dbz_lease_take: CAS on the lease word */
    seen = lease;
    do
    :: atomic { seen >= epoch -> goto out }
    :: else ->
        if
        :: atomic { lease == seen -> lease = epoch; break }
        :: else -> seen = lease
        fi
    od;
    /* then the published word */
    atomic { seen_epoch = pub_epoch; seen_state = pub_state };
    do
    :: seen_epoch == epoch -> break
#ifdef NO_EPOCH_CHECK
    :: seen_epoch != epoch ->
#else
    :: seen_epoch > epoch -> goto out
    :: seen_epoch < epoch ->
#endif
#ifdef BLIND_MOVE
        atomic { pub_epoch = epoch; pub_state = seen_state };
        seen_epoch = epoch
#else
        atomic {
            if
            :: pub_epoch == seen_epoch && pub_state == seen_state -> pub_epoch = epoch; seen_epoch = epoch
            :: else -> seen_epoch = pub_epoch; seen_state = pub_state
            fi
        }
#endif
    od;
    /* the take returns */
    atomic { if :: epoch > top -> top = epoch :: else fi };
    state = pub_state;
    do
    :: rounds < 2 && state < LAST ->
#ifdef BLIND_PUBLISH
        if
        :: pub_epoch == epoch && pub_state == state
        :: else -> goto out
        fi;
        atomic { pub_epoch = epoch; pub_state = state + 1 };
#else
        atomic {
            if
            :: pub_epoch == epoch && pub_state == state -> pub_state = state + 1
            :: else -> goto out
            fi;
#endif
            assert(epoch >= top);
            assert(maker[state + 1] == 0);
            maker[state + 1] = epoch;
            assert(state == 0 || maker[state] <= epoch);
            assert(state == 0 || maker[state] != 0);
#ifndef BLIND_PUBLISH
        };
#endif
        state++;
        rounds++
    :: break
    od;
out:
    skip
}

init {
    atomic { run Holder(1); run Holder(2); run Holder(3) }
}
