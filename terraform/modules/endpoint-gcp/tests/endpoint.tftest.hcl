mock_provider "google" {}

variables {
  project      = "acme"
  managed_zone = "example-com"
  name         = "ingest.example.com"
  endpoints = {
    fra = { address = "192.0.2.10", location = "europe-west3" }
    ams = { address = "198.51.100.10", location = "europe-west4", tier = "secondary", weight = 20 }
    iad = { address = "203.0.113.10", location = "us-east4", tier = "secondary", weight = 0 }
  }
}

run "failover_goes_to_the_secondary_regions" {
  command = apply
  assert {
    condition     = google_dns_record_set.endpoint.name == "ingest.example.com." && google_dns_record_set.endpoint.type == "A" && google_dns_record_set.endpoint.ttl == 30
    error_message = "record"
  }
  assert {
    condition     = google_dns_record_set.endpoint.routing_policy[0].primary_backup[0].primary[0].external_endpoints == tolist(["192.0.2.10"])
    error_message = "primary endpoints"
  }
  assert {
    condition     = { for b in google_dns_record_set.endpoint.routing_policy[0].primary_backup[0].backup_geo : b.location => b.health_checked_targets[0].external_endpoints[0] } == { "europe-west4" = "198.51.100.10", "us-east4" = "203.0.113.10" }
    error_message = "secondary endpoints"
  }
  assert {
    condition     = length(google_dns_record_set.endpoint.routing_policy[0].wrr) == 0
    error_message = "one policy at a time"
  }
}

run "health_is_asked_at_routez_from_three_regions" {
  command = apply
  assert {
    condition     = google_compute_health_check.endpoint.https_health_check[0].request_path == "/routez" && length(google_compute_health_check.endpoint.source_regions) == 3 && google_compute_health_check.endpoint.check_interval_sec == 30
    error_message = "health check"
  }
  assert {
    condition     = google_dns_record_set.endpoint.routing_policy[0].health_check == google_compute_health_check.endpoint.id
    error_message = "the record goes by it"
  }
}

run "weights" {
  command = apply
  variables {
    policy = "weighted"
  }
  assert {
    condition     = { for w in google_dns_record_set.endpoint.routing_policy[0].wrr : w.health_checked_targets[0].external_endpoints[0] => w.weight } == { "192.0.2.10" = 100, "198.51.100.10" = 20, "203.0.113.10" = 0 }
    error_message = "weights"
  }
  assert {
    condition     = length(google_dns_record_set.endpoint.routing_policy[0].primary_backup) == 0
    error_message = "one policy at a time"
  }
}

run "failover_without_a_secondary_is_refused" {
  command = plan
  variables {
    endpoints = { fra = { address = "192.0.2.10", location = "europe-west3" } }
  }
  expect_failures = [var.endpoints]
}

run "a_name_is_no_address" {
  command = plan
  variables {
    policy    = "weighted"
    endpoints = { fra = { address = "gateway.example.com", location = "europe-west3" } }
  }
  expect_failures = [var.endpoints]
}

run "two_regions_do_not_ask" {
  command = plan
  variables {
    health = { regions = ["europe-west1", "us-east1"] }
  }
  expect_failures = [var.health]
}

run "an_unknown_policy_is_refused" {
  command = plan
  variables {
    policy = "geo"
  }
  expect_failures = [var.policy]
}
