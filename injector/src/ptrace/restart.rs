//! System calls that a stop would end.
//!
//! A thread that waits in the kernel and is asked to stop leaves its call with an error by which the kernel
//! begins it anew when the thread goes on: `-ERESTART*`, which no program ever sees. Some calls know no such
//! error (signal(7), "Interruption of system calls and library functions by stop signals"): their program
//! would see an `EINTR` that it has no reason to expect.
//!
//! Takes what the call of a thread gave that was stopped by its tracer alone; gives that with which the kernel
//! begins the call anew: `-ERESTARTNOHAND`, which is `EINTR` again if a signal comes that has a handler.

/// `ERESTARTNOHAND` (include/linux/errno.h).
const ERESTARTNOHAND: i64 = 514;

/// Not in libc (arch/x86/entry/syscalls/syscall_64.tbl).
pub const SYS_IO_PGETEVENTS: i64 = 333;

/// Calls that give `EINTR` where they have not done anything yet, for whatever wakes them: doing them again is
/// the same as having gone on with them.
const CALLS: [i64; 22] = [
    // `ep_poll` (fs/eventpoll.c).
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    // `__do_semtimedop` (ipc/sem.c).
    libc::SYS_semop,
    libc::SYS_semtimedop,
    // `do_sigtimedwait` (kernel/signal.c).
    libc::SYS_rt_sigtimedwait,
    // `read_events` (fs/aio.c), `io_cqring_wait` (io_uring/).
    libc::SYS_io_getevents,
    SYS_IO_PGETEVENTS,
    libc::SYS_io_uring_enter,
    // Sockets with a time-out of their own: `sock_intr_errno` (include/net/sock.h).
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
];

/// What a call gave that was ended by the stop; as `rax` holds it.
pub const ENDED: u64 = (-(libc::EINTR as i64)).cast_unsigned();

/// And what it is to have given instead.
pub const AGAIN: u64 = (-ERESTARTNOHAND).cast_unsigned();

/// What `rax` is to be instead, for a call with this number that is not begun anew by itself.
#[must_use]
pub fn again(rax: u64, call: i64) -> Option<u64> {
    let ended = rax == ENDED && CALLS.contains(&call);
    ended.then_some(AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_that_the_kernel_would_end() {
        let with = |rax: i64, call| again(rax.cast_unsigned(), call).map(u64::cast_signed);
        let eintr = -i64::from(libc::EINTR);
        assert_eq!(with(eintr, libc::SYS_epoll_wait), Some(-514));
        assert_eq!(with(1, libc::SYS_epoll_wait), None, "it has got something");
        assert_eq!(with(eintr, -1), None, "no call");
        assert_eq!(with(eintr, libc::SYS_close), None, "the descriptor is gone");
        assert_eq!(with(-516, libc::SYS_nanosleep), None, "the kernel knows its deadline");
    }
}
