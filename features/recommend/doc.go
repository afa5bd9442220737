// Package recommend finds items that go together, from what visitors did with them.
//
// It is the pure part of the workflow TrainRecommendations: interactions of published events go in (Collector), similarities of items and their offline metrics come
// out (Train); the activities read the lakehouse and write Redis. Nothing here reads a clock, a file or a random number: the same interactions in any order, with the
// same parameters, give the same model, byte for byte.
//
// The algorithm is item-based collaborative filtering on implicit feedback:
//
//   - The strength of an item in a basket (all that a visitor did, or one session) is ln(1 + Σ weight · 2^(−age / half-life)) over its events, where a purchase
//     weighs more than an addition to the cart and that more than a view.
//   - Items i and j are as similar as the cosine of their columns of strengths, each basket counting 1/√(its number of items), so that visitors who look at
//     everything do not decide (Sarwar, Karypis, Konstan, Riedl: Item-Based Collaborative Filtering Recommendation Algorithms, WWW 2001; Deshpande, Karypis:
//     Item-Based Top-N Recommendation Algorithms, ACM TOIS 22(1), 2004).
//   - The cosine is shrunk by n/(n+λ) for the n baskets that hold both items, since two items that met once are not alike (Bell, Koren: Scalable Collaborative
//     Filtering with Jointly Derived Neighborhood Interpolation Weights, ICDM 2007).
//   - A visitor is recommended the items with the greatest Σ strength(i) · similarity(i, j) over the items i of the basket, without those.
//
// Beside it stands what the stream learns between two nights (ranked.go, online.go): pairs of a session and of an order, and what is popular, with weights that halve with
// time, in lists of bounded length. Blend adds both up.
//
// Memory is bounded: 24 bytes an interaction up to a maximum, beyond which whole baskets are left out by a hash of their key; one list of neighbours an item. Pairs of
// items are never held: similarities are computed item by item.
package recommend
