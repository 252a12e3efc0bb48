//! acl.
