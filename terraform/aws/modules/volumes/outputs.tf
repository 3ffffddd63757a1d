output "devices" {
  description = "<node>/<volume> -> path on the node, the same across boots."
  value       = { for key, volume in aws_ebs_volume.data : key => "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${replace(volume.id, "-", "")}" }
  depends_on  = [aws_volume_attachment.data]
}
