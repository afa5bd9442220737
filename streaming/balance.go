package streaming

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// copartitioned assigns partition numbers, not partitions: a number goes to one member in every input, since it is one task. The usual
// cooperative-sticky assignor balances each topic's partitions by themselves and would tear tasks apart. Cooperative and sticky it is
// all the same: a member keeps what it has up to its share, and only what must move is revoked.
type copartitioned struct {
	kgo.GroupBalancer // cooperative-sticky: member metadata, assignment format
	inputs            []string
	partitions        int32
}

func newCopartitioned(top *Topology) kgo.GroupBalancer {
	return &copartitioned{GroupBalancer: kgo.CooperativeStickyBalancer(), inputs: top.Inputs, partitions: top.Partitions}
}

// ProtocolName keeps members with another assignor out of the group.
func (c *copartitioned) ProtocolName() string { return "millrace-tasks" }

// MemberBalancer implements kgo.GroupBalancer.
func (c *copartitioned) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	b, err := kgo.NewConsumerBalancer(c, members)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the group's members: %w", err)
	}
	return b, b.MemberTopics(), nil
}

// Balance implements kgo.ConsumerBalancerBalance.
func (c *copartitioned) Balance(b *kgo.ConsumerBalancer, topics map[string]int32) kgo.IntoSyncAssignment {
	for _, in := range c.inputs {
		if topics[in] != c.partitions {
			b.SetError(fmt.Errorf("topic %s has %d partitions, the topology has %d", in, topics[in], c.partitions))
			return nil
		}
	}
	var members []*kmsg.JoinGroupResponseMember
	owns := make([][]int32, 0, len(b.Members()))
	gens := make([]int32, 0, len(b.Members()))
	b.EachMember(func(m *kmsg.JoinGroupResponseMember, meta *kmsg.ConsumerMemberMetadata) {
		var own []int32
		for _, o := range meta.OwnedPartitions {
			if o.Topic == c.inputs[0] {
				own = append(own, o.Partitions...)
			}
		}
		slices.Sort(own)
		members, owns, gens = append(members, m), append(owns, own), append(gens, meta.Generation)
	})
	plan := b.NewPlan()
	for i, parts := range balanceTasks(owns, gens, c.partitions) {
		for _, in := range c.inputs {
			plan.AddPartitions(members[i], in, slices.Clone(parts))
		}
	}
	plan.AdjustCooperative(b)
	return plan
}

// balanceTasks gives each of n numbers to one member. Members are in a stable order; what each owns is what it said when it joined,
// in the generation it said it of: of two claims to a number the newer counts.
func balanceTasks(owns [][]int32, gens []int32, n int32) [][]int32 {
	owner := make([]int, n)
	for i := range owner {
		owner[i] = -1
	}
	for m, own := range owns {
		for _, p := range own {
			if p >= 0 && p < n && (owner[p] < 0 || gens[m] > gens[owner[p]]) {
				owner[p] = m
			}
		}
	}
	share, more := int(n)/len(owns), int(n)%len(owns) // `more` members have one above share
	out := make([][]int32, len(owns))
	var free []int32
	// Those who hold the most keep the larger shares, so that the fewest move.
	held := make([]int, len(owns))
	for _, m := range owner {
		if m >= 0 {
			held[m]++
		}
	}
	order := make([]int, len(owns))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return held[b] - held[a] })
	quota := make([]int, len(owns))
	for i, m := range order {
		quota[m] = share
		if i < more {
			quota[m]++
		}
	}
	for p := range n {
		if m := owner[p]; m >= 0 && len(out[m]) < quota[m] {
			out[m] = append(out[m], p)
		} else {
			free = append(free, p)
		}
	}
	for m := range out {
		for len(out[m]) < quota[m] {
			out[m], free = append(out[m], free[0]), free[1:]
		}
		slices.Sort(out[m])
	}
	return out
}
