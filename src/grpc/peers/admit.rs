//! One member asks another whether an object may be admitted, because that one
//! decides for everybody.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_core::claims::{Claim, Interest, Slot, Stake, Taken};
use flotilla_core::ids::{Kind, MemberName, ObjectKey};
use flotilla_proto::peer as wire;
use futures::future::BoxFuture;
use tonic::Status;

use super::{Peers, convert};

/// What a member is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionQuestion {
    /// Kind of the object.
    pub kind: Kind,
    /// The object.
    pub key: ObjectKey,
    /// What it claims.
    pub claims: Vec<Claim>,
    /// Whether it will be written if it is admitted: then its claims are reserved.
    pub reserve: bool,
    /// Whether the member that was to be asked first could not be reached.
    pub stand_in: bool,
}

impl AdmissionQuestion {
    /// Claims of one question; no object that people write has nearly as many.
    pub const MOST_CLAIMS: usize = 4096;
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionAnswer {
    /// Nobody else claims what it claims.
    Free,
    /// Others do.
    Taken(Vec<Taken>),
    /// It is not for the member to say, but for another one, if it knows of any.
    AskAnother(Option<MemberName>),
    /// It does not know enough yet.
    NotReady,
}

/// Answers the questions of other members.
pub type AdmissionSource =
    Arc<dyn Fn(AdmissionQuestion) -> BoxFuture<'static, AdmissionAnswer> + Send + Sync>;

impl Peers {
    /// Asks a member.
    ///
    /// # Errors
    /// When it is not reached, does not answer in time, or cannot be understood.
    pub async fn admit(
        &self,
        member: &MemberName,
        question: &AdmissionQuestion,
        timeout: Duration,
    ) -> Result<AdmissionAnswer, Status> {
        let client = self.lines().of(member).map(|line| line.client.clone());
        let mut client = client
            .ok_or_else(|| Status::unavailable(format!("member {member} is not reached at present")))?;
        let answer = tokio::time::timeout(timeout, client.admit(question_out(question)))
            .await
            .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
        answer_in(answer.into_inner())
    }
}

fn object_out(kind: Kind, key: &ObjectKey) -> wire::ObjectName {
    wire::ObjectName {
        kind: convert::kind_out(kind).into(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    }
}

fn object_in(object: Option<wire::ObjectName>) -> Result<(Kind, ObjectKey), Status> {
    let object = object.ok_or_else(|| Status::invalid_argument("an object's name is missing"))?;
    Ok((convert::kind_in(object.kind)?, ObjectKey::new(object.namespace, object.name)))
}

fn question_out(question: &AdmissionQuestion) -> wire::AdmitRequest {
    let claim = |Claim { stake: Stake { slot, interest }, .. }: &Claim| wire::Claim {
        slot: Bytes::copy_from_slice(&slot.0),
        takes: interest.takes.into(),
        bars: interest.bars.into(),
    };
    wire::AdmitRequest {
        object: Some(object_out(question.kind, &question.key)),
        claims: question.claims.iter().map(claim).collect(),
        reserve: question.reserve,
        stand_in: question.stand_in,
    }
}

/// Fields and words of claims stay with the asker: the answer names claims by
/// their place.
pub(super) fn question_in(request: wire::AdmitRequest) -> Result<AdmissionQuestion, Status> {
    let (kind, key) = object_in(request.object)?;
    const MOST: usize = AdmissionQuestion::MOST_CLAIMS;
    if request.claims.len() > MOST {
        return Err(Status::invalid_argument(format!("more than {MOST} claims")));
    }
    let parts = |parts: u32| {
        u16::try_from(parts).map_err(|_| Status::invalid_argument("parts of a slot are 16 bits"))
    };
    let claim = |claim: wire::Claim| {
        let interest = Interest { takes: parts(claim.takes)?, bars: parts(claim.bars)? };
        let slot = <[u8; 16]>::try_from(&*claim.slot);
        let slot = Slot(slot.map_err(|_| Status::invalid_argument("a slot has 16 bytes"))?);
        Ok(Claim { stake: Stake { slot, interest }, field: "".into(), words: "".into() })
    };
    Ok(AdmissionQuestion {
        kind,
        key,
        claims: request.claims.into_iter().map(claim).collect::<Result<_, Status>>()?,
        reserve: request.reserve,
        stand_in: request.stand_in,
    })
}

pub(super) fn answer_out(answer: AdmissionAnswer) -> wire::AdmitResponse {
    let verdict = match &answer {
        AdmissionAnswer::Free => wire::Verdict::Free,
        AdmissionAnswer::Taken(_) => wire::Verdict::Taken,
        AdmissionAnswer::AskAnother(_) => wire::Verdict::AskAnother,
        AdmissionAnswer::NotReady => wire::Verdict::NotReady,
    };
    let mut response = wire::AdmitResponse { verdict: verdict.into(), ..wire::AdmitResponse::default() };
    match answer {
        AdmissionAnswer::Taken(taken) => {
            let one = |taken: Taken| wire::Taken {
                claim: u32::try_from(taken.claim).unwrap_or(u32::MAX),
                by: Some(object_out(taken.kind, &taken.key)),
                moments_ago: taken.reserved,
            };
            response.taken = taken.into_iter().map(one).collect();
        }
        AdmissionAnswer::AskAnother(Some(member)) => response.member = member.to_string(),
        _ => {}
    }
    response
}

fn answer_in(response: wire::AdmitResponse) -> Result<AdmissionAnswer, Status> {
    let taken = |taken: wire::Taken| {
        let (kind, key) = object_in(taken.by)?;
        let claim = usize::try_from(taken.claim).unwrap_or(usize::MAX);
        Ok(Taken { claim, kind, key, reserved: taken.moments_ago })
    };
    match wire::Verdict::try_from(response.verdict) {
        Ok(wire::Verdict::Free) => Ok(AdmissionAnswer::Free),
        Ok(wire::Verdict::Taken) => {
            let taken: Vec<Taken> = response.taken.into_iter().map(taken).collect::<Result<_, Status>>()?;
            if taken.is_empty() {
                return Err(Status::invalid_argument("it is taken, but by nobody"));
            }
            Ok(AdmissionAnswer::Taken(taken))
        }
        Ok(wire::Verdict::AskAnother) => {
            let member = (!response.member.is_empty()).then(|| MemberName::from(response.member));
            Ok(AdmissionAnswer::AskAnother(member))
        }
        Ok(wire::Verdict::NotReady) => Ok(AdmissionAnswer::NotReady),
        Ok(wire::Verdict::Unspecified) | Err(_) => {
            Err(Status::invalid_argument(format!("verdict {} is unknown", response.verdict)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_arrive_as_they_were_meant() {
        let key = |name: &str| ObjectKey::new("n", name);
        let claim = |field: &str| Claim {
            stake: Stake { slot: Slot::of("s"), interest: Interest { takes: 3, bars: 1 } },
            field: field.into(),
            words: field.into(),
        };
        let asked = AdmissionQuestion {
            kind: Kind::Backend,
            key: key("a"),
            claims: vec![claim("spec")],
            reserve: true,
            stand_in: false,
        };
        let heard = question_in(question_out(&asked)).unwrap();
        assert_eq!(heard, AdmissionQuestion { claims: vec![claim("")], ..asked.clone() });
        let taken = Taken { claim: 0, kind: Kind::ApiRoute, key: key("c"), reserved: true };
        for answer in [
            AdmissionAnswer::Free,
            AdmissionAnswer::Taken(vec![taken]),
            AdmissionAnswer::AskAnother(Some("m".into())),
            AdmissionAnswer::AskAnother(None),
            AdmissionAnswer::NotReady,
        ] {
            assert_eq!(answer_in(answer_out(answer.clone())).unwrap(), answer);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut request = wire::AdmitRequest::default();
        assert!(question_in(request.clone()).is_err(), "no object");
        request.object = Some(object_out(Kind::ApiRoute, &ObjectKey::new("n", "a")));
        assert!(question_in(request.clone()).is_ok());
        request.claims = vec![wire::Claim { takes: 1 << 16, ..wire::Claim::default() }];
        assert!(question_in(request.clone()).is_err(), "too many bits");
        request.claims = vec![wire::Claim { slot: vec![0; 15].into(), ..wire::Claim::default() }];
        assert!(question_in(request.clone()).is_err(), "no slot");
        let whole = wire::Claim { slot: vec![0; 16].into(), ..wire::Claim::default() };
        request.claims = vec![whole.clone(); AdmissionQuestion::MOST_CLAIMS];
        assert!(question_in(request.clone()).is_ok());
        request.claims.push(whole);
        assert!(question_in(request).is_err(), "too many claims");
        assert!(answer_in(wire::AdmitResponse::default()).is_err(), "no verdict");
        let nobody = wire::AdmitResponse { verdict: wire::Verdict::Taken.into(), ..Default::default() };
        assert!(answer_in(nobody).is_err());
    }
}
