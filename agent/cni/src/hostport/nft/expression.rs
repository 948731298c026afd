//! Expressions of rules, as `linux/netfilter/nf_tables.h` has them.

use crate::netlink::Attributes;

/// A 32-bit register; the parts of a concatenation lie in consecutive ones.
pub(super) const fn register(number: u32) -> u32 {
    8 + number
}

const VERDICT: u32 = 0;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const NFT_JUMP: i32 = -3;
const NFT_RETURN: i32 = -5;
const NF_DROP: i32 = 0;

/// `meta` keys
#[derive(Clone, Copy)]
pub(super) enum Meta {
    Iifname = 6,
    Oifname = 7,
    Nfproto = 15,
    L4proto = 16,
}

/// Where an offset counts from.
#[derive(Clone, Copy)]
pub(super) enum Base {
    Network = 1,
    Transport = 2,
}

/// The expressions of a rule.
#[derive(Default)]
pub(super) struct Rule(Attributes);

impl Rule {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn into_attributes(self) -> Attributes {
        self.0
    }

    fn add(self, name: &str, data: Attributes) -> Self {
        const LIST_ELEMENT: u16 = 1;
        let expression = Attributes::new().string(1, name).nest(2, data);
        Self(self.0.nest(LIST_ELEMENT, expression))
    }

    pub(super) fn meta(self, key: Meta, to: u32) -> Self {
        self.add("meta", Attributes::new().be32(1, to).be32(2, key as u32))
    }

    pub(super) fn payload(self, base: Base, offset: u32, length: u32, to: u32) -> Self {
        let data = Attributes::new()
            .be32(1, to)
            .be32(2, base as u32)
            .be32(3, offset)
            .be32(4, length);
        self.add("payload", data)
    }

    /// Goes on only if the register begins with `value`.
    pub(super) fn equals(self, from: u32, value: &[u8]) -> Self {
        self.compare(from, 0, value)
    }

    fn compare(self, from: u32, operator: u32, value: &[u8]) -> Self {
        let data = Attributes::new()
            .be32(1, from)
            .be32(2, operator)
            .nest(3, Attributes::new().bytes(DATA_VALUE, value));
        self.add("cmp", data)
    }

    /// Goes on only if the flow has been given another destination.
    pub(super) fn translated(self) -> Self {
        const CT_STATUS: u32 = 2;
        const IPS_DST_NAT: u32 = 1 << 5;
        const NOT_EQUAL: u32 = 1;
        let at = register(0);
        let bitwise = Attributes::new()
            .be32(1, at)
            .be32(2, at)
            .be32(3, 4)
            .nest(
                4,
                Attributes::new().bytes(DATA_VALUE, &IPS_DST_NAT.to_ne_bytes()),
            )
            .nest(5, Attributes::new().bytes(DATA_VALUE, &[0; 4]));
        self.add("ct", Attributes::new().be32(1, at).be32(2, CT_STATUS))
            .add("bitwise", bitwise)
            .compare(at, NOT_EQUAL, &[0; 4])
    }

    /// Goes on only if the destination is an address of this host.
    pub(super) fn for_this_host(self) -> Self {
        const RESULT_ADDRESS_TYPE: u32 = 3;
        const FLAG_DESTINATION: u32 = 1 << 1;
        const RTN_LOCAL: u32 = 2;
        let at = register(0);
        let data = Attributes::new()
            .be32(1, at)
            .be32(2, RESULT_ADDRESS_TYPE)
            .be32(3, FLAG_DESTINATION);
        self.add("fib", data).equals(at, &RTN_LOCAL.to_ne_bytes())
    }

    /// Goes on only if the key is in the set.
    pub(super) fn within(self, set: &str, key: u32) -> Self {
        self.add("lookup", Attributes::new().string(1, set).be32(2, key))
    }

    /// Goes on only if the key is in the map; what it leads to is in `to` from then on.
    pub(super) fn map(self, map: &str, key: u32, to: u32) -> Self {
        let data = Attributes::new().string(1, map).be32(2, key).be32(3, to);
        self.add("lookup", data)
    }

    /// Sends the flow to the address and port in the registers.
    pub(super) fn dnat(self, family: u8, address: u32, port: u32) -> Self {
        const DNAT: u32 = 1;
        let data = Attributes::new()
            .be32(1, DNAT)
            .be32(2, family.into())
            .be32(3, address)
            .be32(5, port);
        self.add("nat", data)
    }

    /// Gives the flow an address of this host as source.
    pub(super) fn masquerade(self) -> Self {
        self.add("masq", Attributes::new())
    }

    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(NFT_JUMP, Some(chain))
    }

    /// Ends the chain.
    pub(super) fn leave(self) -> Self {
        self.verdict(NFT_RETURN, None)
    }

    pub(super) fn drop(self) -> Self {
        self.verdict(NF_DROP, None)
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let mut verdict = Attributes::new().bytes(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            verdict = verdict.string(2, chain);
        }
        let data = Attributes::new()
            .be32(1, VERDICT)
            .nest(2, Attributes::new().nest(DATA_VERDICT, verdict));
        self.add("immediate", data)
    }
}
