//! ptrace(2) and what goes with it: the state of threads in types, remote system calls, letting
//! some threads run on.
//!
//! | module | holds |
//! |---|---|
//! | [`sys`] | the system calls; all unsafe code of the project |
//! | [`stop`] | what a wait status means |
//! | [`thread`] | [`thread::Running`] and [`thread::Stopped`] |
//! | [`process`] | [`process::StoppedProcess`]: every thread at once |
//! | [`borrow`] | [`borrow::Borrowed`]: remote system calls in a stopped thread |
//! | [`footholds`] | code of the process that remote calls go through |
//! | [`gate`] | what seccomp lets a thread do |
//! | [`lifeline`] | what saves a borrowed thread if the tool dies |
//! | [`restart`] | system calls that a stop would end, and that begin anew |
//! | [`keep`] | time-outs of such calls |
//! | [`keeper`] | the process that keeps them when the tool has ended |
//! | [`park`] | how threads come to it and from it |
//! | [`onward`] | some threads run on to an address while the others stand still |
//! | [`trapnet`] | a process that survives traps that nobody takes |
//! | [`hold`] | a process that would stay stopped if the tool died |
//! | [`stepping`] | one thread goes on, instruction by instruction |
//! | [`guardian`] | the process that does the work, which nobody kills by mistake |
//! | [`sched`] | when and where the tool itself runs |

pub mod borrow;
pub mod footholds;
pub mod gate;
pub mod guardian;
pub mod hold;
pub mod keep;
pub mod keeper;
pub mod lifeline;
pub mod onward;
pub mod park;
pub mod process;
pub mod restart;
pub mod sched;
pub mod stepping;
pub mod stop;
pub mod sys;
pub mod thread;
pub mod trapnet;
