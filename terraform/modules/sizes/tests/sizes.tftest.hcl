# The arithmetic: values that the AWS documentation prints, and what is refused.

variables {
  instance_type = "m5.large"
  zones         = ["eu-central-1a", "eu-central-1b"]
}

run "single_addresses_are_eks_29_of_an_m5_large" {
  command = plan

  assert {
    condition     = output.formula == 29 && output.max_pods == 29
    error_message = "m5.large: 3 ENIs x 9 + 2 is 29, not ${output.formula} (kubelet: ${output.max_pods})."
  }
}

run "the_primary_carries_no_pods_under_custom_networking" {
  command = plan

  variables {
    custom_networking = true
  }

  assert {
    condition     = output.max_pods == 20
    error_message = "m5.large: 2 ENIs x 9 + 2 is 20, not ${output.max_pods}."
  }
}

run "prefixes_are_capped_as_eks_recommends" {
  command = plan

  variables {
    prefix_delegation = true
  }

  assert {
    condition     = output.formula == 434 && output.max_pods == 110
    error_message = "m5.large: 3 x 9 x 16 + 2 is 434, capped at 110; not ${output.formula} and ${output.max_pods}."
  }
}

run "many_processors_have_the_higher_cap" {
  command = plan

  variables {
    instance_type     = "m5.16xlarge"
    prefix_delegation = true
  }

  assert {
    condition     = output.max_pods == 250
    error_message = "64 vCPUs are capped at 250, not ${output.max_pods}."
  }
}

run "a_type_without_prefixes_has_single_addresses" {
  command = plan

  variables {
    instance_type     = "m4.large"
    prefix_delegation = true
  }

  assert {
    condition     = output.max_pods == 20
    error_message = "m4.large is no Nitro type: 2 x 9 + 2 is 20, not ${output.max_pods}."
  }
}

run "the_blocks_are_cut_by_zone" {
  command = plan

  assert {
    condition = output.public_cidrs == {
      "eu-central-1a" = "10.0.0.0/24"
      "eu-central-1b" = "10.0.1.0/24"
    }
    error_message = "Public subnets: ${jsonencode(output.public_cidrs)}."
  }
  assert {
    condition = output.node_cidrs == {
      "eu-central-1a" = "10.0.16.0/20"
      "eu-central-1b" = "10.0.32.0/20"
    }
    error_message = "Node subnets: ${jsonencode(output.node_cidrs)}."
  }
  assert {
    condition = output.pod_cidrs == {
      "eu-central-1a" = "100.64.0.0/17"
      "eu-central-1b" = "100.64.128.0/17"
    }
    error_message = "Pod subnets: ${jsonencode(output.pod_cidrs)}."
  }
  assert {
    condition     = output.reserved_cidrs["eu-central-1b"] == "100.64.128.0/18"
    error_message = "Half of a pod subnet is reserved, not ${output.reserved_cidrs["eu-central-1b"]}."
  }
}

run "three_zones_have_quarters" {
  command = plan

  variables {
    zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
  }

  assert {
    condition     = output.pod_cidrs["us-east-1c"] == "100.64.128.0/18"
    error_message = "The third quarter is 100.64.128.0/18, not ${output.pod_cidrs["us-east-1c"]}."
  }
}

run "a_type_that_the_table_lacks_is_refused" {
  command = plan

  variables {
    instance_type = "m5.humongous"
  }

  expect_failures = [var.instance_type]
}

run "one_zone_is_refused" {
  command = plan

  variables {
    zones = ["eu-central-1a"]
  }

  expect_failures = [var.zones]
}

run "a_block_with_bits_behind_its_length_is_refused" {
  command = plan

  variables {
    vpc_cidr = "10.0.1.0/16"
  }

  expect_failures = [var.vpc_cidr]
}

run "a_vpc_that_is_too_large_is_refused" {
  command = plan

  variables {
    vpc_cidr = "10.0.0.0/8"
  }

  expect_failures = [var.vpc_cidr]
}

run "pods_outside_the_shared_space_are_refused" {
  command = plan

  variables {
    pod_cidr = "10.1.0.0/16"
  }

  expect_failures = [var.pod_cidr]
}

run "pods_that_do_not_fit_are_refused" {
  command = plan

  variables {
    pod_cidr          = "100.64.0.0/22"
    prefix_delegation = true
    most_nodes        = 4
  }

  expect_failures = [output.max_pods]
}
