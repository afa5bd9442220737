mock_provider "google" {
  mock_resource "google_dns_managed_zone" {
    defaults = {
      name_servers = ["ns-cloud-a1.example.net", "ns-cloud-a2.example.net"]
    }
  }
  mock_resource "google_service_account" {
    defaults = {
      email = "millrace@acme.iam.gserviceaccount.com"
    }
  }
}

variables {
  project = "acme"
  domain  = "shop.example.com"
}

run "the_stack_stands" {
  command = apply
  assert {
    condition     = output.url == "https://ingest.shop.example.com" && output.warehouse == "gs://acme-millrace-lake" && output.bigquery.dataset == "millrace"
    error_message = "outputs"
  }
  assert {
    condition     = length(output.bigquery.tables) == 7
    error_message = "tables"
  }
}
