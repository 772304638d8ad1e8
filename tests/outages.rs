//! The API server is away, or worse: there, but with no answer, no memory, no room or no patience. What becomes of jobs
//! whose pods end meanwhile?
//!
//! ```text
//! kubelet, user, recorder ───────────────► API server ──► etcd
//!                                              ▲   └─ audit: every request of the operator
//! operator ──TLS──► gate ──(closed, frozen)────┘
//! ```
//!
//! | file | answers |
//! |---|---|
//! | `gate` | the way to the API server, which can be closed, frozen, and forget connections |
//! | `ground` | the clusters: one as usual, and one with little memory, little room and little patience |
//! | `identity` | who the operator is: a service account, its token in a file, which is replaced |
//! | `outage` | which outages there are, how each begins and ends, and what shows that it came about |
//! | `stage` | the jobs, what becomes of their pods meanwhile, and what is due once it is over |
//! | `idle` | how long the operator asks nothing of an API server that has just come back |
//! | `play` | one outage from the first job to the last law |

pub mod gate;
pub mod ground;
pub mod identity;
pub mod idle;
pub mod outage;
pub mod play;
pub mod stage;
